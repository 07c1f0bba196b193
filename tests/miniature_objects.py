"""Data sets and models as people have them, made small."""

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Rows (x, y) in float64: x of three numbers, y which of two classes."""

    def __init__(self, rows: int = 37) -> None:
        generator = torch.Generator().manual_seed(rows)
        self.x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row], (self.x[row].sum() > 0).long()


class Noisy(Pairs):
    """The same with noise from the three generators that anyone may draw from."""

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        x, y = super().__getitem__(row)
        return x + torch.randn(3, dtype=torch.float64) + np.random.randn() + random.random(), y


class Net(nn.Sequential):
    """A layer of float64."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        self.double()


def my_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """One number a row."""
    return F.cross_entropy(outputs, targets, reduction="none")


def image_folder(folder: Path, sizes: tuple[int, ...] = (8, 8)) -> Path:
    """As `ImageFolder` reads it: a folder a class, with an image of each size."""
    for number, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True)
        for count, size in enumerate(sizes):
            pixels = np.full((size, size, 3), 100 * number + count, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{count}.png")
    return folder
