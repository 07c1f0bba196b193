"""The metric that decides which checkpoint is the best and when a run stops early."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from blitz.errors import require
from blitz.outputs.metrics import Classification, Metrics

_LOWER = frozenset(
    {"loss", "mae", "rmse", "mape", "pixel_error", "log_loss", "perplexity", "brier", "calibration_error"}
)
_HIGHER = frozenset(
    {"balanced_accuracy", "f1", "f1_macro", "f1_micro", "f1_at_threshold", "auroc", "average_precision", "r2"}
    | {"bleu", "chrf"}
)
_MAJORITY = 0.8
"""If the most frequent class has at least this share of the rows, accuracy does not decide."""


@dataclass(frozen=True)
class Best:
    """The settings of the metric that decides which checkpoint is the best and when a run stops early."""

    metric: str | None = None
    """A metric of the validation rows, such as loss or f1_macro; among equals the lower loss decides, then the earlier
    step. By default the recipe's: accuracy for classes, but f1_macro if one class has 80 % of the rows or more."""
    mode: Literal["min", "max"] | None = None
    """Whether a lower or a higher value is better; needed for metrics that blitz does not know."""

    def __post_init__(self) -> None:
        name = self.name
        require(
            name is not None or self.mode is None, f"--best.mode is {self.mode}; name the metric with --best.metric"
        )
        known = name is None or self.mode is not None or _direction(name) is not None
        require(known, f"--best.metric is {name}: say with --best.mode whether min or max is better")

    @property
    def name(self) -> str | None:
        """The metric's name without `val/`."""
        return None if self.metric is None else self.metric.removeprefix("val/")

    def require_among(self, reported: Sequence[str] | None) -> None:
        """Refuse a metric that no evaluation can give, where it is known which they give.

        Raises:
            UserError: if it is such a metric.
        """
        if self.name is not None and reported is not None:
            _require_metric(self.name, ("loss", *reported))


@dataclass(frozen=True)
class Deciding:
    """The deciding metric."""

    metric: str
    """Its name, without `val/`."""
    higher_is_better: bool
    why: str = ""
    """Why it is not the one that the recipe names, in a sentence; else empty."""

    def value(self, values: Mapping[str, float]) -> float:
        """The deciding metric of an evaluation.

        Raises:
            UserError: if it is not among its metrics.
        """
        _require_metric(self.metric, values)
        return values[self.metric]


def _require_metric(name: str, there: Collection[str]) -> None:
    known = ", ".join(one for one in there if "/" not in one)
    require(name in there, f"--best.metric: there is no metric '{name}'; there are {known}")


def _direction(name: str) -> Literal["min", "max"] | None:
    kind = name.partition("/")[0]
    if kind in _LOWER or kind.startswith("quantile_loss_"):
        return "min"
    return "max" if kind in _HIGHER or kind.endswith("accuracy") else None


def deciding_metric(best: Best, metrics: Metrics, sums: Mapping[str, Tensor] | None) -> Deciding:
    """The metric that decides, from the setting, or else the recipe's metrics and, if known, the sums of an evaluation.

    Where one class has nearly all rows, accuracy does not tell a model that finds the others from one that does not.
    """
    if best.name is not None:
        return Deciding(best.name, (best.mode or _direction(best.name)) == "max")
    if sums is not None and isinstance(metrics, Classification) and metrics.best == "accuracy":
        rows = {one.name: one.rows for one in metrics.by_class(sums)}
        frequent = max(rows, key=lambda name: rows[name])
        share = rows[frequent] / max(1, sum(rows.values()))
        if share >= _MAJORITY:
            why = f"{share:.1%} of the rows are '{frequent}', which is the accuracy of always predicting that class"
            return Deciding("f1_macro", True, f"f1_macro decides which checkpoint is the best, not accuracy: {why}")
    return Deciding(metrics.best, metrics.higher_is_better)
