"""Predictions as columns for people to read."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Columns = dict[str, list[str] | list[float]]

_MOST_CLASSES = 100


def class_predictions(scores: Tensor, classes: Sequence[str]) -> Columns:
    """`prediction`, its `probability`, and `probability_<class>` of each, from scores of shape (batch, classes).

    Where there are more than 100 classes, the probabilities of single ones are left out.
    """
    probabilities = scores.double().softmax(1)
    highest, numbers = probabilities.max(1)
    columns: Columns = {"prediction": [classes[number] for number in numbers.tolist()], "probability": highest.tolist()}
    if len(classes) <= _MOST_CLASSES:
        columns |= {
            f"probability_{name}": values.tolist() for name, values in zip(classes, probabilities.T, strict=True)
        }
    return columns


def number_predictions(outputs: Tensor, scales: Mapping[str, tuple[float, float]]) -> Columns:
    """`prediction_<name>`, or `prediction` where there is one, as `mean + std * output`.

    `scales` gives mean and standard deviation for each column of the outputs, (batch, columns) or (batch,).
    """
    means, stds = torch.tensor(list(scales.values()), dtype=torch.float64, device=outputs.device).unbind(1)
    values = outputs.double().reshape(-1, len(scales)) * stds + means
    names = ["prediction"] if len(scales) == 1 else [f"prediction_{name}" for name in scales]
    return {name: column.tolist() for name, column in zip(names, values.T, strict=True)}
