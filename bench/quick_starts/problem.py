"""The model and the data set that every quick start trains: nothing in here is of one of the tools."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Circle(Dataset[tuple[Tensor, Tensor]]):
    """Points in a square, and whether they lie in a circle."""

    def __init__(self, rows: int, seed: int) -> None:
        self.points = torch.rand(rows, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        self.inside = (self.points[:, :2].norm(dim=1) < 0.8).long()

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """A point of shape (16,), of which two numbers count, and 0 or 1."""
        return self.points[row], self.inside[row]


class Net(nn.Sequential):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2))


TRAIN, VAL = Circle(64_000, seed=0), Circle(6_400, seed=1)
