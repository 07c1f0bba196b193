"""Labels, of which a row may have any number: their metrics, predictions and examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blitz.outputs.examples import Example
from blitz.outputs.metrics import Sums
from blitz.outputs.predictions import Columns


@dataclass(frozen=True)
class MultiLabel:
    """F1 over labels that are predicted where their probability is at least 0.5, from integer counts.

    Outputs are scores of shape (batch, labels), whose sigmoid is the probability; `targets` 0 and 1 of that shape.
    """

    labels: tuple[str, ...]
    best: str = "f1_macro"
    higher_is_better: bool = True

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return ("f1_macro", "f1_micro", "exact_accuracy")

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`label_counts` (3, labels): rows with a label, predicted to have it, and both; `exact`; `label_rows`."""
        targets, predicted = batch["targets"] > 0.5, outputs >= 0
        counts = torch.stack([targets.sum(0), predicted.sum(0), (targets & predicted).sum(0)])
        exact = (targets == predicted).all(1).sum()
        return {"label_counts": counts, "exact": exact, "label_rows": torch.tensor(len(targets), device=outputs.device)}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`f1_macro`, `f1_micro`, and the share of rows whose labels are all right, `exact_accuracy`.

        Macro F1 is the mean over the labels that occur or are predicted, micro F1 that of all labels of all rows.
        """
        each = [*self.f1_by_label(sums).values()]
        has, predicted, both = sums["label_counts"].sum(1).tolist()
        return {
            "f1_macro": sum(each) / max(1, len(each)),
            "f1_micro": 2 * both / max(1, has + predicted),
            "exact_accuracy": sums["exact"].item() / max(1, sums["label_rows"].item()),
        }

    def f1_by_label(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """F1 of each label that occurs or is predicted."""
        columns = zip(self.labels, sums["label_counts"].T.tolist(), strict=True)
        return {name: 2 * both / (has + predicted) for name, (has, predicted, both) in columns if has + predicted}


def label_predictions(scores: Tensor, labels: Sequence[str], separator: str) -> Columns:
    """Predicted labels and the `probability_<label>` of each, from scores of shape (batch, labels).

    Those with a probability of 0.5 or more: as one column of lists, `prediction`, or without a separator as 0 or 1 in
    `prediction_<label>`.
    """
    probabilities = _columns("probability", labels, scores.double().sigmoid())
    predicted = scores >= 0
    if separator:
        return {"prediction": _lists(predicted, labels, separator), **probabilities}
    return {**_columns("prediction", labels, predicted.double()), **probabilities}


def _columns(prefix: str, labels: Sequence[str], values: Tensor) -> Columns:
    return {f"{prefix}_{name}": column.tolist() for name, column in zip(labels, values.T, strict=True)}


def label_examples(scores: Tensor, targets: Tensor, labels: Sequence[str]) -> list[Example]:
    """Examples from scores and targets of shape (batch, labels)."""
    truths, predictions = (_lists(each, labels, ", ") for each in (targets > 0.5, scores >= 0))
    return [
        {"truth": truth or "none", "prediction": prediction or "none"}
        for truth, prediction in zip(truths, predictions, strict=True)
    ]


def _lists(rows: Tensor, labels: Sequence[str], separator: str) -> list[str]:
    return [separator.join(labels[number] for number in row.nonzero().flatten().tolist()) for row in rows]


@dataclass(frozen=True)
class LabelF1:
    """F1 of each label, from the counts that the recipe's own metrics have."""

    metrics: MultiLabel

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return tuple(f"f1/{name}" for name in self.metrics.labels)

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """No sums of its own."""
        return {}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`f1/<label>`."""
        return {f"f1/{name}": one for name, one in self.metrics.f1_by_label(sums).items()}
