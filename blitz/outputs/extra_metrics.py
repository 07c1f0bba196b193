"""Metrics that an evaluation computes on request, from counts and sums that add up over batches and ranks.

Ranking metrics count scores in bins: they are exact for scores rounded to the bins, and take the same memory for any
number of rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from blitz.data.text.vocabulary import Vocabulary
from blitz.errors import require
from blitz.outputs.chrf import ChrF
from blitz.outputs.metrics import Classification, Metrics, Regression, Sums
from blitz.outputs.multi_label import LabelF1, MultiLabel

_OF_PROBABILITIES = ("log_loss", "perplexity", "brier", "calibration_error")
_OF_RANKS = ("auroc", "average_precision", "threshold")
_OF_CLASSES = ("f1", *_OF_RANKS, *_OF_PROBABILITIES)
_OF_LABELS = ("f1", "auroc", "average_precision")
_OF_NUMBERS = ("mape", "quantile_loss_0.1", "quantile_loss_0.9")
_MOST_RANKED = 64
_CALIBRATION_BINS = 15


class Extra(Protocol):
    """Metrics beside those of a recipe; like `Metrics`, but without a deciding metric."""

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """Sums over the rows of a batch."""

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The metrics by name, from the sums over all rows, those of the recipe's own metrics among them."""


def is_extra(name: str) -> bool:
    """Whether it is the name of such a metric."""
    return name in (*_OF_CLASSES, "chrf", "mape") or _quantile(name) is not None


def extra_metrics(names: Sequence[str], metrics: Metrics) -> list[Extra]:
    """The metrics that are named; `metrics` are the recipe's own, which say what its outputs are.

    Raises:
        UserError: if one is unknown, or is not for such outputs.
    """
    vocabulary = getattr(metrics, "vocabulary", None)
    if isinstance(metrics, Classification):
        known: Sequence[str] = _OF_CLASSES
    elif isinstance(metrics, MultiLabel):
        known = _OF_LABELS
    elif isinstance(metrics, Regression):
        known = _OF_NUMBERS
    else:
        known = ("chrf",) if isinstance(vocabulary, Vocabulary) else ()
    for name in names:
        is_known = name in known or (isinstance(metrics, Regression) and _quantile(name) is not None)
        there = f"there are {', '.join(known)}" if known else "this recipe's outputs have none"
        require(is_known, f"--extra-metrics: '{name}' is not known for this recipe; {there}")
    found: list[Extra] = []
    ranked = metrics.labels if isinstance(metrics, MultiLabel) else getattr(metrics, "classes", ())
    require(
        len(ranked) <= _MOST_RANKED or not {*names} & {*_OF_RANKS},
        f"--extra-metrics: auroc and average_precision are for at most {_MOST_RANKED} classes or labels",
    )
    if isinstance(metrics, Classification):
        two = len(metrics.classes) == 2
        require("threshold" not in names or two, "--extra-metrics: a threshold is for two classes")
        found += [F1(metrics)] if "f1" in names else []
        if own := tuple(name for name in _OF_RANKS if name in names):
            found.append(Ranking(metrics.classes, own))
        if own := tuple(name for name in _OF_PROBABILITIES if name in names):
            found.append(Probabilities(own))
    elif isinstance(metrics, MultiLabel):
        found += [LabelF1(metrics)] if "f1" in names else []
        if own := tuple(name for name in _OF_RANKS if name in names):
            found.append(Ranking(metrics.labels, own, are_labels=True))
    elif isinstance(metrics, Regression):
        found += [Relative(metrics)] if "mape" in names else []
        found += [Quantile(metrics, name) for name in names if name != "mape"]
    elif names:
        assert isinstance(vocabulary, Vocabulary)
        found.append(ChrF(vocabulary))
    return found


def _quantile(name: str) -> float | None:
    text = name.removeprefix("quantile_loss_")
    try:
        level = float(text) if text != name else math.nan
    except ValueError:
        return None
    return level if 0 < level < 1 else None


@dataclass(frozen=True)
class F1:
    """F1 of each class and micro F1, from the counts that the recipe's own metrics have."""

    metrics: Classification

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return ("f1_micro", *(f"f1/{name}" for name in self.metrics.classes))

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """No sums of its own."""
        return {}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`f1_micro`, which is the accuracy where each row has one class, and `f1/<class>`."""
        by_class = self.metrics.f1_by_class(sums)
        return {"f1_micro": self.metrics.total(sums).accuracy, **{f"f1/{name}": one for name, one in by_class.items()}}


@dataclass(frozen=True)
class Ranking:
    """How well the scores rank rows: areas under curves, and the threshold of two classes with the highest F1.

    A row's score for a class is its log-odds, rounded to float16; of more than two classes, and of labels, to its first
    12 bits. Two scores in one bin count as equal.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    are_labels: bool = False
    """Whether a row may have any number of them; outputs are then the log-odds themselves."""

    @property
    def _are_two(self) -> bool:
        """Whether the score for one class is that for the other, negated."""
        return len(self.classes) == 2 and not self.are_labels

    @property
    def _shift(self) -> int:
        return 0 if self._are_two else 4

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        own = (*self.names, *(["f1_at_threshold"] if "threshold" in self.names else []))
        return own if self._are_two else (*own, *(f"{name}/{one}" for name in self.names for one in self.classes))

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`scores`: counts of shape (classes, 2, bins): of each class, rows of other classes and its own.

        For two classes those of the second class alone, (1, 2, bins).
        """
        odds, own = self._odds(outputs.double(), batch["targets"].long())
        bins, columns = 1 << (16 - self._shift), odds.shape[1]
        cells = (torch.arange(columns, device=odds.device) * 2 + own.long()) * bins + _ordered(odds) // (
            1 << self._shift
        )
        return {"scores": torch.bincount(cells.flatten(), minlength=columns * 2 * bins).reshape(columns, 2, bins)}

    def _odds(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds, and whether the row is of the class, both of shape (batch, columns of `scores`)."""
        if self.are_labels:
            return outputs, targets.bool()
        logs = outputs.log_softmax(1)
        # log(1 - p) is exact where p is near 1 only from the others.
        others = torch.stack([_without(logs, column).logsumexp(1) for column in range(logs.shape[1])], dim=1)
        odds = logs - others
        if self._are_two:
            return odds[:, 1:], (targets == 1)[:, None]
        return odds, torch.nn.functional.one_hot(targets, len(self.classes)).bool()

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`auroc` and `average_precision`, and with more than two classes those of each and their means.

        The average precision of two classes is that of the rarer, of two that are equally frequent the second.
        """
        scores = sums["scores"].double()
        values: dict[str, float] = {}
        if self._are_two:
            negative, positive = self._two(scores, self.positive(sums))
            if positive.sum() and negative.sum():
                found = {"auroc": _auroc(negative, positive), "average_precision": _precision(negative, positive)}
                values = {name: found[name] for name in found if name in self.names}
                if "threshold" in self.names:
                    cut, f1 = _best_cut(negative, positive)
                    values |= {"threshold": _probability(cut), "f1_at_threshold": f1}
            return values
        for name, area in (("auroc", _auroc), ("average_precision", _precision)):
            if name in self.names:
                occurring = [n for n, (other, own) in enumerate(scores) if own.sum() and other.sum()]
                each = {f"{name}/{self.classes[n]}": area(*scores[n]) for n in occurring}
                values |= {name: sum(each.values()) / max(1, len(each)), **each}
        return values

    def positive(self, sums: Mapping[str, Tensor]) -> int:
        """The number of the rarer of two classes."""
        rows = sums["scores"].sum(2)[0].tolist()
        return 0 if rows[0] < rows[1] else 1

    def _two(self, scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Counts by score for the class of that number, of rows of the other class and of that class."""
        negative, positive = scores[0]
        if number == 1:
            return negative, positive
        # Its log-odds are the negated ones, which lie in the bins from the end.
        return positive.flip(0), negative.flip(0)

    def f1_of(self, at: Mapping[str, Any]) -> float:
        """F1 of the class in what `at_threshold` gives."""
        positive, cells = self.classes.index(at["class"]), at["confusion"]
        found = sum(cells[positive]) + sum(row[positive] for row in cells)
        f1: float = 2 * cells[positive][positive] / max(1, found)
        return f1

    def at_threshold(self, sums: Mapping[str, Tensor], chosen: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The confusion matrix of two classes at a threshold: the one with the highest F1 on these rows.

        Or at that which this has `chosen` on other rows.
        """
        positive = self.positive(sums) if chosen is None else self.classes.index(chosen["class"])
        negatives, positives = self._two(sums["scores"].double(), positive)
        cut: int = _best_cut(negatives, positives)[0] if chosen is None else chosen["cut"]
        cells = [[int(each[:cut].sum()), int(each[cut:].sum())] for each in (negatives, positives)]
        if positive == 0:
            cells = [row[::-1] for row in cells[::-1]]
        return {
            "class": self.classes[positive],
            "probability": _probability(cut),
            "cut": cut,
            "confusion": cells,
        }


def _without(logs: Tensor, column: int) -> Tensor:
    return torch.cat([logs[:, :column], logs[:, column + 1 :]], dim=1)


def _ordered(values: Tensor) -> Tensor:
    """float16 numbers as integers from 0 to 65535 in the same order."""
    # + 0.0, so that -0 is 0.
    bits = (values.clamp(-65504, 65504).half() + 0.0).view(torch.int16).long()
    return torch.where(bits < 0, -1 - (bits + 32768), bits) + 32768


def _probability(cut: int) -> float:
    """The least probability in the bin `cut` of `_ordered`."""
    bits = cut - 32768
    stored = bits if bits >= 0 else -1 - bits - 32768
    odds = torch.tensor(stored, dtype=torch.int16).view(torch.float16).double()
    return float(odds.sigmoid())


def _auroc(negative: Tensor, positive: Tensor) -> float:
    """The share of pairs of which the positive one has the higher score; equal scores count half."""
    below = negative.cumsum(0) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def _precision(negative: Tensor, positive: Tensor) -> float:
    """The mean over the positive rows of the precision at their scores, as scikit-learn defines average precision."""
    right, wrong = positive.flip(0).cumsum(0), negative.flip(0).cumsum(0)
    return float((positive.flip(0) * right / (right + wrong).clamp(min=1)).sum() / positive.sum())


def _best_cut(negative: Tensor, positive: Tensor) -> tuple[int, float]:
    """The bin from which on a row counts as positive, for the highest F1, and that; the highest of several."""
    right, wrong = positive.flip(0).cumsum(0), negative.flip(0).cumsum(0)
    f1 = 2 * right / (right + wrong + positive.sum()).clamp(min=1)
    best = int(f1.argmax())
    return len(f1) - 1 - best, float(f1[best])


@dataclass(frozen=True)
class Probabilities:
    """Whether probabilities are good: log loss, perplexity, Brier score, and the expected calibration error."""

    names: tuple[str, ...]

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return self.names

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`rows_judged`, and float64 sums over the rows; of calibration for each of 15 bins of confidence, (3, 15)."""
        logs, targets = outputs.double().log_softmax(1), batch["targets"].long()
        sums = {"rows_judged": torch.tensor(len(targets), device=outputs.device)}
        if {"log_loss", "perplexity"} & {*self.names}:
            sums["log_loss"] = -logs.gather(1, targets[:, None]).sum()
        probabilities = logs.exp()
        if "brier" in self.names:
            truth = torch.nn.functional.one_hot(targets, outputs.shape[1])
            # Of two classes that of one of them, as scikit-learn has it.
            sums["brier"] = (probabilities - truth).square().sum() / (2 if outputs.shape[1] == 2 else 1)
        if "calibration_error" in self.names:
            confidence, predicted = probabilities.max(1)
            bins = (confidence * _CALIBRATION_BINS).ceil().long().clamp(1, _CALIBRATION_BINS) - 1
            each = torch.stack([torch.ones_like(confidence), confidence, (predicted == targets).double()])
            sums["calibration"] = each.new_zeros(3, _CALIBRATION_BINS).index_add(1, bins, each)
        return sums

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Those that are named."""
        rows, values = max(1, sums["rows_judged"].item()), {}
        if "log_loss" in sums:
            loss = sums["log_loss"].item() / rows
            values = {"log_loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if "brier" in sums:
            values["brier"] = sums["brier"].item() / rows
        if "calibration" in sums:
            _, confidence, right = sums["calibration"]
            values["calibration_error"] = (confidence - right).abs().sum().item() / rows
        return {name: values[name] for name in self.names}


@dataclass(frozen=True)
class Relative:
    """The mean absolute error relative to the target, over all columns."""

    metrics: Regression

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return ("mape",)

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`relative_error`, the float64 sum of |error| / |target|."""
        errors, targets = self.metrics.errors(outputs, batch)
        return {"relative_error": (errors.abs() / targets.abs().clamp(min=torch.finfo(torch.float64).eps)).sum()}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`mape`: 0.1 is 10 %."""
        return {"mape": sums["relative_error"].item() / (sums["values"].item() * len(self.metrics.units))}


@dataclass(frozen=True)
class Quantile:
    """The loss whose least value is at a quantile of the target, over all columns (Koenker & Bassett 1978)."""

    metrics: Regression
    name: str

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return (self.name,)

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """The float64 sum over the rows, by the metric's name."""
        errors, _ = self.metrics.errors(outputs, batch)
        level = _quantile(self.name)
        assert level is not None
        return {self.name: torch.maximum(-level * errors, (1 - level) * errors).sum()}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The mean, in the target's unit."""
        return {self.name: sums[self.name].item() / (sums["values"].item() * len(self.metrics.units))}
