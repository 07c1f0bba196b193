"""Two interleaved spirals, and a small network that tells them apart. Replace the data and the model by your own."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from blitz import ArrayDataset, Batch, Classification, Optim, Recipe, Split


class Net(nn.Module):
    """Two hidden layers of `width`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


@dataclass(frozen=True)
class $class_name(Recipe):
    """Points of two spirals. Every field is a flag: `blitz train $module.py --width 64 --optim.lr 0.003`."""

    epochs: int = 40
    global_batch_size: int = 64
    optim: Optim = Optim(name="adam", lr=0.01)
    width: int = 32
    """Units in each hidden layer."""
    noise: float = 0.05
    """Standard deviation of the points around their spiral."""

    def dataset(self, split: Split) -> ArrayDataset:
        rows = 2000 if split == "train" else 500
        random = np.random.default_rng([self.seed, split == "train"])
        targets = random.integers(0, 2, rows)
        turn = random.uniform(0.5, 3.0, rows)
        angle = turn * np.pi + targets * np.pi
        inputs = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1)
        inputs += random.normal(scale=self.noise, size=inputs.shape)
        return ArrayDataset(inputs=inputs.astype(np.float32), targets=targets)

    def build_model(self) -> nn.Module:
        return Net(self.width)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        # One number a row: the loop takes the mean over the batch, on any number of workers.
        return F.cross_entropy(outputs, batch["targets"], reduction="none")

    def metrics(self) -> Classification:
        return Classification(classes=("first", "second"))
