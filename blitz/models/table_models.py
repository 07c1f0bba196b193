"""Models for tables by name, and the scaling of numbers that they share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blitz.errors import require
from blitz.models.mlp import Activation
from blitz.models.number_embeddings import clipped, robust_scale, scaled_knots
from blitz.models.realmlp import RealMLP
from blitz.models.tabm import TabM
from blitz.models.tabular_mlp import TabularMLP

TableModelName = Literal["tabm", "realmlp", "mlp"]
Effort = Literal["fast", "default", "best"]

HIDDEN: dict[TableModelName, tuple[int, ...]] = {"tabm": (128, 128), "realmlp": (256, 256, 256), "mlp": (64, 32)}
"""Default widths of the hidden layers."""
DROPOUT: dict[TableModelName, float] = {"tabm": 0.1, "realmlp": 0.15, "mlp": 0.1}
"""Default dropout after each hidden layer."""
MEMBERS: dict[Effort, int] = {"fast": 4, "default": 8, "best": 32}
"""TabM: networks in the ensemble."""
_EPOCHS: dict[Effort, float] = {"fast": 0.5, "default": 1.0, "best": 2.0}
"""Epochs, as a multiple of the default."""
_MOST_EMBEDDED = 128
"""Total width of the embeddings of a row, about; each has a width of at least 4."""


def scaled(numbers: Tensor, *, quantiles: Sequence[Sequence[float]], has_missing: Sequence[bool]) -> Tensor:
    """Robustly scaled and smoothly clipped as float32, and 0 for a missing number, which is NaN.

    (batch, numbers) float64 → (batch, numbers + those with missing ones): the latter flag where a number was missing.
    """
    missing, flagged = numbers.isnan(), [column for column, has in enumerate(has_missing) if has]
    scales = [robust_scale(one) for one in quantiles]
    centres, factors = (numbers.new_tensor(values) for values in zip(*scales, strict=True)) if scales else (0.0, 1.0)
    found = clipped((numbers - centres) * factors)
    return torch.cat([found.masked_fill(missing, 0), missing[:, flagged]], 1).float()


@dataclass(frozen=True)
class Layers:
    """The model."""

    name: TableModelName = "tabm"
    """tabm: an ensemble in one network; realmlp: a tuned multilayer perceptron; mlp: a plain one. Settings of the
    optimizer that are not given follow from it."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers; by default those of the model."""
    dropout: float | None = None
    """Dropout probability after each hidden layer; by default that of the model."""
    members: int | None = None
    """tabm: networks in the ensemble; by default those of --effort."""
    activation: Activation = "relu"
    """mlp: the activation after each hidden layer."""

    def __post_init__(self) -> None:
        widths, dropout = self.hidden or (), self.dropout or 0.0
        require(all(width >= 1 for width in widths), f"--model.hidden is {self.hidden}; each must be at least 1")
        require(0 <= dropout < 1, f"--model.dropout is {self.dropout}; it must be in [0, 1)")
        require(self.members is None or self.members >= 1, f"--model.members is {self.members}; it must be at least 1")

    def build(
        self, *, flags: int, quantiles: Sequence[Sequence[float]], codes: Sequence[int], outputs: int, classifies: bool
    ) -> nn.Module:
        """A model of (batch, numbers + flags) and (batch, categories).

        Args:
            flags: columns that flag where a number is missing.
            quantiles: of each number.
            codes: for each category the number of its codes.
            outputs: classes, or 1 number.
            classifies: whether these are classes.
        """
        shape: dict[str, Any] = {
            "numbers": len(quantiles) + flags,
            "codes": codes,
            "outputs": outputs,
            "hidden": HIDDEN[self.name] if self.hidden is None else self.hidden,
            "dropout": DROPOUT[self.name] if self.dropout is None else self.dropout,
        }
        if self.name == "mlp":
            return TabularMLP(**shape, activation=self.activation)
        edges = [scaled_knots(one) for one in quantiles]
        if self.name == "realmlp":
            return RealMLP(**shape, quantiles=edges, classifies=classifies)
        width = max(4, min(16, _MOST_EMBEDDED // max(1, len(edges))))
        members = self.members or MEMBERS["default"]
        return TabM(**shape, edges=edges, members=members, embedding_width=width, classifies=classifies)


def usual_optim(name: TableModelName, *, classifies: bool) -> dict[str, Any]:
    """Default settings of the optimizer."""
    match name:
        case "tabm":
            return {"name": "adamw", "lr": 6e-3, "weight_decay": 0.05, "schedule": "wsd", "decay_fraction": 0.5}
        case "realmlp":
            lr = 0.04 if classifies else 0.2
            return {"name": "adamw", "lr": lr, "betas": (0.9, 0.95), "weight_decay": 0.02, "schedule": "coslog"}
        case "mlp":
            return {"name": "adamw", "lr": 1e-2, "weight_decay": 0.01, "schedule": "cosine"}


def usual_batch(name: TableModelName, rows: int) -> int:
    """Default rows per step."""
    if name == "mlp":
        return 32
    if name == "realmlp":
        return 256
    return max(32, min(256, 1 << max(1, rows // 32).bit_length() - 1))


def usual_epochs(name: TableModelName, rows: int, effort: Effort) -> int:
    """Default passes over this number of training rows."""
    if name == "mlp":
        epochs = 30.0
    elif name == "realmlp":
        epochs = max(32, min(256, 256 * math.sqrt(2000 / max(1, rows))))
    else:
        # Small tables are passed over more often, for 500 steps at least.
        epochs = max(8, min(40, 80 * (1000 / max(1, rows)) ** 0.45), min(80, 16_000 / max(1, rows)))
    return max(1, round(epochs * _EPOCHS[effort]))
