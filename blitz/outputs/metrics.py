"""Metrics of a model's outputs: sums that add up over batches and ranks, and the values computed from them.

A metric never averages averages. It turns the rows of a batch into sums, the sums are added over all batches and
ranks, and only then are the values computed, so every row counts once whatever the number of workers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from blitz.errors import require

Sums = dict[str, Tensor]

# A matrix of more classes is too large to store and to read.
_MOST_CONFUSED = 200


def format_metric(value: float) -> str:
    """A metric for display: four decimals, or four significant digits where it is very small or very large."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


class Metrics(Protocol):
    """The metrics of a recipe, as `Recipe.metrics` returns them."""

    @property
    def best(self) -> str:
        """The metric that decides which checkpoint is the best."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value of `best` is better."""

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """Sums over the rows of a batch, pad rows already left out; on the outputs' device."""

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The metrics by name, from the sums over all rows."""


@dataclass(frozen=True)
class Loss:
    """No metric but the loss, which is always reported."""

    best: str = "loss"
    higher_is_better: bool = False

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return ()

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """No sums, no metrics."""
        return {}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """No sums, no metrics."""
        return {}


@dataclass(frozen=True)
class Means:
    """The means over the rows of numbers that a function gives for each row.

    `per_row(outputs, targets)` gives named tensors of shape (batch,) or (batch, …), of which a row's mean is taken. The
    best checkpoint is that of the lowest loss.
    """

    per_row: Callable[[Any, Any], Mapping[str, Tensor]]
    targets: Callable[[Mapping[str, Tensor]], Any]
    """Extracts the function's `targets` from a batch."""
    best: str = "loss"
    higher_is_better: bool = False

    def sums(self, outputs: Any, batch: Mapping[str, Tensor]) -> Sums:
        """`count`, the rows, and of each name the float64 sum over them."""
        values = self.per_row(outputs, self.targets(batch))
        rows = len(next(iter(batch.values())))
        for name, value in values.items():
            require(
                isinstance(value, Tensor) and value.dim() > 0 and len(value) == rows,
                f"metrics: '{name}' must be a tensor with a number for each of the {rows} rows, not their mean",
            )
        sums = {f"sum/{name}": value.double().reshape(rows, -1).mean(1).sum() for name, value in values.items()}
        return {"count": torch.tensor(rows, device=next(iter(batch.values())).device), **sums}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The mean of each name."""
        count = max(1, sums["count"].item())
        # Beside these, evaluation has sums of its own.
        named = {name.removeprefix("sum/"): value for name, value in sums.items() if name.startswith("sum/")}
        return {name: value.item() / count for name, value in named.items()}


@dataclass(frozen=True)
class Regression:
    """Mean absolute error, root of the mean squared error, and R², the share of the targets' variance explained.

    Outputs and targets are numbers in units of `units`, one for each column; the metrics are in the targets' own. Where
    targets are standardised those are their standard deviations: a shift of both changes no metric.
    """

    units: tuple[float, ...] = (1.0,)
    names: tuple[str, ...] = ()
    """Names of the columns, if there are several: each then also has its own error."""
    means: tuple[float, ...] = ()
    """What the targets' own numbers are above those that are learned, in their own units; by default 0."""
    best: str = "rmse"
    higher_is_better: bool = False
    undo: Callable[[Tensor], Tensor] | None = None
    """What gives outputs and targets in those units, if they are learned in another way, such as their logarithms."""

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return ("mae", "rmse", "r2", *(f"mae/{name}" for name in self.names))

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`values`, those of each column, and float64 sums of |error|, error², target and target², for each column."""
        # Reshaped, because (batch, 1) minus (batch,) would be a square of differences.
        targets, outputs = (self._undone(each).reshape(-1, len(self.units)) for each in (batch["targets"], outputs))
        errors = outputs - targets
        return {
            "values": torch.tensor(len(targets), device=targets.device),
            "absolute_error": errors.abs().sum(0),
            "squared_error": errors.square().sum(0),
            "target": targets.sum(0),
            "squared_target": targets.square().sum(0),
        }

    def _undone(self, numbers: Tensor) -> Tensor:
        return numbers.double() if self.undo is None else self.undo(numbers.double())

    def errors(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Errors and targets in the targets' own units, float64 of shape (batch, columns)."""
        targets, outputs = (self._undone(each).reshape(-1, len(self.units)) for each in (batch["targets"], outputs))
        errors = outputs - targets
        units, means = (targets.new_tensor(each) for each in (self.units, self.means or (0.0,) * len(self.units)))
        return errors * units, targets * units + means

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`mae` and `rmse` over all columns, `mae/<name>` of each, and `r2` unless all targets are the same."""
        values, units = sums["values"].item(), torch.tensor(self.units, dtype=torch.float64)
        absolute = sums["absolute_error"] * units / values
        squared = sums["squared_error"] * units.square() / values
        variation = (sums["squared_target"] - sums["target"].square() / values).sum().item()
        explained = {"r2": 1 - sums["squared_error"].sum().item() / variation} if variation > 0 else {}
        return {
            "mae": absolute.mean().item(),
            "rmse": math.sqrt(squared.mean().item()),
            **explained,
            **{f"mae/{name}": value for name, value in zip(self.names, absolute.tolist(), strict=False)},
        }


@dataclass(frozen=True)
class Distance:
    """The mean distance of points from their targets, in pixels of the image in which they were marked.

    Outputs and `targets` are (batch, 2 · points), x and y in turn; `frame`, (batch, 4), holds in its last two columns
    how many pixels one unit of x and of y is.
    """

    best: str = "pixel_error"
    higher_is_better: bool = False

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return ("pixel_error",)

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`points`, their number, and the float64 sum of their distances."""
        errors = (outputs.double() - batch["targets"].double()).reshape(len(outputs), -1, 2)
        distances = (errors * batch["frame"][:, None, 2:].double()).norm(dim=2)
        return {"points": torch.tensor(distances.numel(), device=distances.device), "distance": distances.sum()}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`pixel_error`."""
        return {"pixel_error": sums["distance"].item() / sums["points"].item()}


@dataclass(frozen=True)
class ClassAccuracy:
    """How many rows of a class there are, and how many of them were classified right."""

    name: str
    rows: int
    right: int

    @property
    def accuracy(self) -> float:
        """Share of the rows that were classified right; NaN if there are no rows."""
        return self.right / self.rows if self.rows else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy."""
        return wilson_interval(self.right, self.rows)


@dataclass(frozen=True)
class Classification:
    """Accuracy, over all and for each class, from one confusion matrix of integer counts.

    Outputs are scores of shape (batch, classes), `targets` class numbers of shape (batch,).
    """

    classes: tuple[str, ...]
    top_k: int = 5
    """With more classes than this, the share of rows whose class is among so many highest scores is reported too."""
    best: str = "accuracy"
    higher_is_better: bool = True

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        top = [f"top_{self.top_k}_accuracy"] if len(self.classes) > self.top_k else []
        return ("accuracy", *top, "balanced_accuracy", "f1_macro", *(f"accuracy/{name}" for name in self.classes))

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`confusion`: counts of shape (classes, classes), truth down and prediction across.

        Of more than 200 classes only its diagonal and the sums of its rows and columns, `right`, `rows_of` and
        `predicted`. Of more than `top_k`, `in_top_k`: how many rows have their class among the highest scores.
        """
        count, targets, predicted = len(self.classes), batch["targets"].long(), outputs.argmax(1)
        highest = {}
        if count > self.top_k:
            highest["in_top_k"] = (outputs.topk(self.top_k, dim=1).indices == targets[:, None]).sum()
        if count > _MOST_CONFUSED:
            right = torch.bincount(targets[targets == predicted], minlength=count)
            rows_of, taken = (torch.bincount(each, minlength=count) for each in (targets, predicted))
            return {"right": right, "rows_of": rows_of, "predicted": taken, **highest}
        cells = targets * count + predicted
        return {"confusion": torch.bincount(cells, minlength=count * count).reshape(count, count), **highest}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`accuracy`, `top_<k>_accuracy`, `balanced_accuracy`, `f1_macro`, and `accuracy/<class>` for each that occurs.

        Balanced accuracy is the mean accuracy of the classes that occur; macro F1 the mean over the classes that occur
        or are predicted, as scikit-learn defines both.
        """
        by_class, total = self.by_class(sums), self.total(sums)
        values = {"accuracy": total.right / max(1, total.rows)}
        if "in_top_k" in sums:
            values[f"top_{self.top_k}_accuracy"] = sums["in_top_k"].item() / max(1, total.rows)
        recalls = [each.accuracy for each in by_class if each.rows]
        values["balanced_accuracy"] = sum(recalls) / max(1, len(recalls))
        found = self.f1_by_class(sums).values()
        values["f1_macro"] = sum(found) / max(1, len(found))
        return values | {f"accuracy/{each.name}": each.accuracy for each in by_class if each.rows}

    def by_class(self, sums: Mapping[str, Tensor]) -> list[ClassAccuracy]:
        """The accuracy of each class, in order."""
        if "confusion" in sums:
            right, rows = sums["confusion"].diagonal(), sums["confusion"].sum(1)
        else:
            right, rows = sums["right"], sums["rows_of"]
        counts = zip(self.classes, rows.tolist(), right.tolist(), strict=True)
        return [ClassAccuracy(name, total, correct) for name, total, correct in counts]

    def f1_by_class(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """F1, 2 · precision · recall / (precision + recall), of each class that occurs or is predicted."""
        predicted = (sums["confusion"].sum(0) if "confusion" in sums else sums["predicted"]).tolist()
        return {
            each.name: 2 * each.right / (each.rows + taken)
            for each, taken in zip(self.by_class(sums), predicted, strict=True)
            if each.rows + taken
        }

    def total(self, sums: Mapping[str, Tensor]) -> ClassAccuracy:
        """The accuracy over all classes."""
        by_class = self.by_class(sums)
        return ClassAccuracy("all", sum(each.rows for each in by_class), sum(each.right for each in by_class))


def wilson_interval(right: int, rows: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The score interval of a share, with the default `z` of a confidence of 95 %.

    Unlike the share give or take its standard error it holds for few rows, and for all or none of them right (Wilson
    1927, "Probable inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22).
    """
    if not rows:
        return 0.0, 1.0
    share, squared = right / rows, z * z / rows
    middle = (share + squared / 2) / (1 + squared)
    reach = z * math.sqrt(share * (1 - share) / rows + squared / (4 * rows)) / (1 + squared)
    return (0.0 if right == 0 else middle - reach), (1.0 if right == rows else middle + reach)
