"""Some rows as people see them: what was there, and what the model said."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from blitz.data.text.vocabulary import Vocabulary
from blitz.outputs.predictions import Columns, class_predictions

Example = dict[str, Any]
"""What there is to say of one row, in the types of JSON: `truth` and `prediction` as text or as numbers by their names,
`probability` of a predicted class, and of a translation `source` and `attention`."""


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


def translation_examples(
    vocabulary: Vocabulary, source: Tensor, target: Tensor, tokens: Tensor, attention: Tensor
) -> list[Example]:
    """Of tokens (batch, …): `source`, `truth` and `prediction` as texts, and `attention`.

    That is `source` and `prediction` piece by piece, and `weights`: for each piece of the prediction how much the model
    looked at each piece of the source, to two decimals.
    """
    sources, targets, said = (rows.tolist() for rows in (source, target, tokens))
    texts = (vocabulary.decode(rows) for rows in (sources, targets, said))
    found: list[Example] = []
    for row, (asked, truth, prediction) in enumerate(zip(*texts, strict=True)):
        pieces = {"source": vocabulary.pieces(sources[row]), "prediction": vocabulary.pieces(said[row])}
        weights = attention[row, : len(pieces["prediction"]), : len(pieces["source"])].tolist()
        looked = {**pieces, "weights": [[round(weight, 2) for weight in line] for line in weights]}
        found.append({"source": asked, "truth": truth, "prediction": prediction, "attention": looked})
    return found


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    names = [name.removeprefix("prediction_") for name in columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
