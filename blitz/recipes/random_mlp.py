"""Overfitting random examples: the net of PyTorch's "Learning PyTorch with Examples"."""

from dataclasses import dataclass

from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.noise import noise
from blitz.data.plan import Split
from blitz.models.mlp import MLP, Activation
from blitz.optim import Optim
from blitz.recipe import Batch, Recipe

_ROWS, _INPUTS, _HIDDEN, _TARGETS = 64, 1000, 100, 10


@dataclass(frozen=True)
class RandomMLP(Recipe):
    """A 1000-100-10 net and the summed squared error of 64 random examples; `val` is the same examples."""

    epochs: int = 500
    global_batch_size: int = _ROWS
    evaluate_every_steps: int | None = 100
    log_every_steps: int = 100
    optim: Optim = Optim(name="adam", lr=1e-4)
    activation: Activation = "relu"
    """The activation after the hidden layer."""

    def dataset(self, split: Split) -> ArrayDataset:
        return noise(rows=_ROWS, inputs=_INPUTS, targets=_TARGETS, seed=self.seed)

    def build_model(self) -> nn.Module:
        return MLP((_INPUTS, _HIDDEN, _TARGETS), activation=self.activation)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        # Scaled so that the mean over the rows is the sum over them.
        return _ROWS * (outputs - batch["targets"]).square().sum(1)
