"""Example rows for people to look at: the truth and the prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from blitz.data.text.vocabulary import Vocabulary
from blitz.outputs.predictions import Columns, class_predictions

Example = dict[str, Any]
"""One row, in the types of JSON: `truth` and `prediction` as text or as numbers by name, `probability` of a predicted
class, and for a translation `source` and `attention`."""


def class_examples(scores: Tensor, targets: Tensor, classes: Sequence[str]) -> list[Example]:
    """Examples from scores (batch, classes) and class numbers (batch,)."""
    predicted = class_predictions(scores, classes)
    found = zip(targets.tolist(), predicted["prediction"], predicted["probability"], strict=True)
    return [
        {"truth": classes[truth], "prediction": prediction, "probability": probability}
        for truth, prediction, probability in found
    ]


def number_examples(predictions: Columns, truths: Columns) -> list[Example]:
    """Examples from numbers in columns of the same names, as `Recipe.predictions` returns them."""
    return [
        {"truth": truth, "prediction": prediction}
        for truth, prediction in zip(_rows(truths), _rows(predictions), strict=True)
    ]


def translation_examples(
    vocabulary: Vocabulary, source: Tensor, target: Tensor, tokens: Tensor, attention: Tensor
) -> list[Example]:
    """Examples from tokens (batch, …): `source`, `truth` and `prediction` as texts, and `attention`.

    That is `source` and `prediction` piece by piece, and `weights`: the attention of each piece of the prediction to
    each piece of the source, to two decimals.
    """
    sources, targets, translations = (rows.tolist() for rows in (source, target, tokens))
    texts = (vocabulary.decode(rows) for rows in (sources, targets, translations))
    found: list[Example] = []
    for row, (text, truth, prediction) in enumerate(zip(*texts, strict=True)):
        pieces = {"source": vocabulary.pieces(sources[row]), "prediction": vocabulary.pieces(translations[row])}
        weights = attention[row, : len(pieces["prediction"]), : len(pieces["source"])].tolist()
        looked = {**pieces, "weights": [[round(weight, 2) for weight in line] for line in weights]}
        found.append({"source": text, "truth": truth, "prediction": prediction, "attention": looked})
    return found


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    names = [name.removeprefix("prediction_") for name in columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
