"""Some rows as people see them: what was there, and what the model said."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from blitz.predictions import Columns, class_predictions

Example = dict[str, Any]
"""What there is to say of one row, in the types of JSON: `truth` and `prediction` as text or as numbers by their names,
and `probability` of a predicted class."""


def class_examples(scores: Tensor, targets: Tensor, classes: Sequence[str]) -> list[Example]:
    """Of scores (batch, classes) and class numbers (batch,)."""
    said = class_predictions(scores, classes)
    found = zip(targets.tolist(), said["prediction"], said["probability"], strict=True)
    return [
        {"truth": classes[truth], "prediction": prediction, "probability": probability}
        for truth, prediction, probability in found
    ]


def number_examples(predictions: Columns, truths: Columns) -> list[Example]:
    """Of numbers in columns with the same names, as `Recipe.predictions` gives them."""
    return [
        {"truth": truth, "prediction": prediction}
        for truth, prediction in zip(_rows(truths), _rows(predictions), strict=True)
    ]


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    names = [name.removeprefix("prediction_") for name in columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
