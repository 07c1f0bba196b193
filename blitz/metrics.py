"""How a model's outputs are judged: sums that add up over batches and ranks, and the figures made of them.

A metric never averages averages. It turns the rows of a batch into sums, the sums are added over all batches and
ranks, and only then do figures come of them, so every row counts once whatever the number of workers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Sums = dict[str, Tensor]


class Metrics(Protocol):
    """What `Recipe.metrics` returns."""

    @property
    def best(self) -> str:
        """The figure that names the best checkpoint."""

    @property
    def higher_is_better(self) -> bool:
        """Whether more of `best` is better."""

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """Sums over the rows of a batch, pad rows already left out; on the outputs' device."""

    def figures(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The named figures, from the sums over all rows."""


@dataclass(frozen=True)
class Loss:
    """No metric but the loss, which is always reported."""

    best: str = "loss"
    higher_is_better: bool = False

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """Nothing."""
        return {}

    def figures(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Regression:
    """Mean absolute error, root of the mean squared error, and R², the share of the targets' variance explained.

    Outputs and targets are numbers in units of `unit`, in as many places; the figures are in the target's own. Where
    targets are standardised that is their standard deviation: a shift of both changes none of the figures.
    """

    unit: float = 1.0
    best: str = "rmse"
    higher_is_better: bool = False

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`values`, their number, and float64 sums over them of |error|, error², target and target²."""
        targets = batch["targets"].double()
        # Reshaped, because (batch, 1) minus (batch,) would be a square of differences.
        errors = outputs.double().reshape(targets.shape) - targets
        return {
            "values": torch.tensor(targets.numel(), device=targets.device),
            "absolute_error": errors.abs().sum(),
            "squared_error": errors.square().sum(),
            "target": targets.sum(),
            "squared_target": targets.square().sum(),
        }

    def figures(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`mae`, `rmse`, and `r2` unless all targets are the same."""
        values = sums["values"].item()
        squared_error = sums["squared_error"].item()
        spread = sums["squared_target"].item() - sums["target"].item() ** 2 / values
        explained = {"r2": 1 - squared_error / spread} if spread > 0 else {}
        return {
            "mae": self.unit * sums["absolute_error"].item() / values,
            "rmse": self.unit * math.sqrt(squared_error / values),
            **explained,
        }


@dataclass(frozen=True)
class Classification:
    """Accuracy, over all and for each class, from one confusion matrix of integer counts.

    Outputs are scores of shape (batch, classes), `targets` class numbers of shape (batch,).
    """

    classes: tuple[str, ...]
    best: str = "accuracy"
    higher_is_better: bool = True

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`confusion`: counts of shape (classes, classes), truth down and prediction across."""
        count = len(self.classes)
        cells = batch["targets"].long() * count + outputs.argmax(1)
        return {"confusion": torch.bincount(cells, minlength=count * count).reshape(count, count)}

    def figures(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`accuracy`, and `accuracy/<class>` for each class that occurs."""
        confusion = sums["confusion"]
        right, rows = confusion.diagonal(), confusion.sum(1)
        by_class = {
            f"accuracy/{name}": right[number].item() / rows[number].item()
            for number, name in enumerate(self.classes)
            if rows[number] > 0
        }
        return {"accuracy": right.sum().item() / max(1, rows.sum().item()), **by_class}
