"""Two clouds of points, and a net with one small hidden layer: the smallest classification of the notes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.models.mlp import MLP, Activation
from blitz.optim import Optim
from blitz.outputs.metrics import Classification
from blitz.outputs.plots import decision_regions
from blitz.recipe import Batch, Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLASSES = ("at (2, 2)", "at (-2, -2)")
_ROWS_A_CLASS = {"train": 100, "val": 500}


@dataclass(frozen=True)
class Blobs(Recipe):
    """Normal clouds of 100 points each around (2, 2) and (-2, -2), and a 2-10-2 net; 500 more of each are `val`."""

    epochs: int = 100
    global_batch_size: int = 200
    evaluate_every_steps: int | None = 20
    log_every_steps: int = 20
    optim: Optim = Optim(name="sgd", lr=0.02)
    activation: Activation = "relu"
    """The activation after the hidden layer."""

    def dataset(self, split: Split) -> ArrayDataset:
        random, rows = np.random.default_rng([self.seed, split == "val"]), _ROWS_A_CLASS[split]
        points = np.concatenate([random.normal(center, size=(rows, 2)) for center in (2, -2)])
        return ArrayDataset(inputs=points.astype(np.float32), targets=np.repeat([0, 1], rows))

    def build_model(self) -> nn.Module:
        return MLP((2, 10, 2), activation=self.activation)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch["targets"], reduction="none")

    def metrics(self) -> Classification:
        return Classification(_CLASSES)

    def picture(self, model: nn.Module, split: Split) -> "Figure":
        return decision_regions(model, **self.dataset(split).columns, classes=_CLASSES)
