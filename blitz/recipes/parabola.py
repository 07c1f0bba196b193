"""A parabola with noise and a net of one small hidden layer: the task on which the blitz's notes compare optimizers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.errors import require
from blitz.models.mlp import MLP, Activation
from blitz.optim import Optim
from blitz.outputs.metrics import Regression
from blitz.outputs.plots import fitted_curve
from blitz.recipe import Batch, Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = {"train": 1000, "val": 200}
_NOISE = 0.1


@dataclass(frozen=True)
class Parabola(Recipe):
    """y = x² + 0.1 · normal noise on 1,000 points in [-1, 1], and a 1-20-1 net; 200 more points are `val`."""

    epochs: int = 12
    log_every_steps: int = 32
    optim: Optim = Optim(name="adam", lr=0.01)
    hidden: tuple[int, ...] = (20,)
    """Widths of the hidden layers."""
    activation: Activation = "relu"
    """The activation after each hidden layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(all(width >= 1 for width in self.hidden), f"--hidden is {self.hidden}; each must be at least 1")

    def dataset(self, split: Split) -> ArrayDataset:
        random = np.random.default_rng([self.seed, split == "val"])
        x = random.uniform(-1, 1, size=(_ROWS[split], 1)).astype(np.float32)
        return ArrayDataset(inputs=x, targets=x**2 + random.normal(scale=_NOISE, size=x.shape).astype(np.float32))

    def build_model(self) -> nn.Module:
        return MLP((1, *self.hidden, 1), activation=self.activation)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs - batch["targets"]).square().mean(1)

    def metrics(self) -> Regression:
        return Regression()

    def picture(self, model: nn.Module, split: Split) -> "Figure":
        return fitted_curve(model, **self.dataset(split).columns)
