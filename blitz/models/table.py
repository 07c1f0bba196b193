"""The models of tables by their names, and the part that they share: scaled numbers."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from blitz.models.mlp import Activation
from blitz.models.number_embeddings import clipped, robust_scale, scaled_knots
from blitz.models.realmlp import RealMLP
from blitz.models.tabm import TabM
from blitz.models.tabular_mlp import TabularMLP

TableModelName = Literal["tabm", "realmlp", "mlp"]

HIDDEN: dict[TableModelName, tuple[int, ...]] = {"tabm": (128, 128), "realmlp": (256, 256, 256), "mlp": (64, 32)}
"""Widths of the hidden layers by default."""
DROPOUT: dict[TableModelName, float] = {"tabm": 0.1, "realmlp": 0.15, "mlp": 0.1}
"""Dropout after each of them by default."""
_MOST_EMBEDDED = 128
"""The embeddings of all numbers of a row have at most about so many values, and each has at least 4."""


def scaled(numbers: Tensor, *, quantiles: Sequence[Sequence[float]], has_missing: Sequence[bool]) -> Tensor:
    """Robustly scaled and smoothly clipped as float32, and 0 for a missing number, which is NaN.

    (batch, numbers) float64 → (batch, numbers + those with missing ones): the latter flag where a number was missing.
    """
    missing, flagged = numbers.isnan(), [column for column, has in enumerate(has_missing) if has]
    scales = [robust_scale(one) for one in quantiles]
    centres, factors = (numbers.new_tensor(values) for values in zip(*scales, strict=True)) if scales else (0.0, 1.0)
    found = clipped((numbers - centres) * factors)
    return torch.cat([found.masked_fill(missing, 0), missing[:, flagged]], 1).float()


def table_model(
    name: TableModelName,
    *,
    flags: int,
    quantiles: Sequence[Sequence[float]],
    codes: Sequence[int],
    outputs: int,
    hidden: Sequence[int] | None,
    dropout: float | None,
    members: int,
    activation: Activation,
    classifies: bool,
) -> nn.Module:
    """A model of (batch, numbers + flags) and (batch, categories).

    Args:
        flags: columns that flag where a number is missing.
        quantiles: of each number.
        codes: for each category the number of its codes.
        outputs: classes, or 1 number.
    """
    numbers = len(quantiles) + flags
    hidden = HIDDEN[name] if hidden is None else hidden
    dropout = DROPOUT[name] if dropout is None else dropout
    if name == "mlp":
        return TabularMLP(
            numbers=numbers, codes=codes, hidden=hidden, dropout=dropout, outputs=outputs, activation=activation
        )
    edges = [scaled_knots(one) for one in quantiles]
    if name == "realmlp":
        return RealMLP(
            numbers=numbers,
            quantiles=edges,
            codes=codes,
            outputs=outputs,
            hidden=hidden,
            dropout=dropout,
            classifies=classifies,
        )
    return TabM(
        numbers=numbers,
        edges=edges,
        codes=codes,
        outputs=outputs,
        members=members,
        hidden=hidden,
        embedding_width=max(4, min(16, _MOST_EMBEDDED // max(1, len(edges)))),
        dropout=dropout,
        classifies=classifies,
    )


def usual_batch(name: TableModelName, rows: int) -> int:
    """Rows a step, where nothing else is asked for."""
    if name == "mlp":
        return 32
    if name == "realmlp":
        return 256
    return max(64, min(256, 1 << max(1, rows // 16).bit_length() - 1))


def usual_epochs(name: TableModelName, rows: int) -> int:
    """Passes over so many training rows, where nothing else is asked for."""
    if name == "mlp":
        return 30
    if name == "realmlp":
        return round(max(32, min(256, 256 * (2000 / max(1, rows)) ** 0.5)))
    return round(max(16, min(80, 80 * (1000 / max(1, rows)) ** 0.5)))
