"""The recipe `language` beside a count model of order 3, by their perplexity on the same tokens.

    python -m bench.language --root DIR [--storage DIR] [--epochs N]

The count model is interpolated Kneser-Ney (Kneser & Ney 1995; Chen & Goodman 1999, one discount an order) over the
recipe's own tokens: trained on the training lines, evaluated on the test lines.
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

import blitz
from blitz.data.plan import Split
from blitz.data.text.vocabulary import BEGIN, PAD
from blitz.recipes.language import Language

_ORDER = 3

Gram = tuple[int, ...]


class KneserNey:
    """Probabilities of the next token, given the two before it."""

    def __init__(self, texts: Iterable[Sequence[int]], vocabulary: int) -> None:
        self._vocabulary = vocabulary
        counts: list[Counter[Gram]] = [Counter() for _ in range(_ORDER + 1)]
        counts[_ORDER].update(gram for text in texts for gram in _grams(text))
        for order in range(_ORDER - 1, 0, -1):
            # In how many contexts a shorter one was seen.
            counts[order].update(gram[1:] for gram in counts[order + 1])
        self._counts, self._discounts = counts, [0.0]
        self._totals: list[Counter[Gram]] = [Counter()]
        self._kinds: list[Counter[Gram]] = [Counter()]
        for order in range(1, _ORDER + 1):
            once, twice = (sum(count == times for count in counts[order].values()) for times in (1, 2))
            self._discounts.append(once / max(1, once + 2 * twice))
            totals: Counter[Gram] = Counter()
            kinds: Counter[Gram] = Counter()
            for gram, count in counts[order].items():
                totals[gram[:-1]] += count
                kinds[gram[:-1]] += 1
            self._totals.append(totals)
            self._kinds.append(kinds)

    def probability(self, gram: Gram) -> float:
        """Of the last token of a gram, given those before it."""
        if not gram:
            return 1 / self._vocabulary
        order, context = len(gram), gram[:-1]
        total, below = self._totals[order][context], self.probability(gram[1:])
        if not total:
            return below
        discount = self._discounts[order]
        kept = max(self._counts[order][gram] - discount, 0.0)
        return (kept + discount * self._kinds[order][context] * below) / total

    def perplexity(self, texts: Iterable[Sequence[int]]) -> float:
        """Of all tokens of some texts."""
        logs = [math.log(self.probability(gram)) for text in texts for gram in _grams(text)]
        return math.exp(-sum(logs) / len(logs))


def _grams(text: Sequence[int]) -> Iterable[Gram]:
    padded = [BEGIN] * (_ORDER - 1) + list(text)
    return (tuple(padded[end - _ORDER : end]) for end in range(_ORDER, len(padded) + 1))


def _texts(recipe: Language, split: Split) -> list[list[int]]:
    rows = recipe.dataset(split)
    tokens = rows.__getitems__(np.arange(len(rows)))["source"]
    return [row[row != PAD].tolist() for row in tokens]


def main() -> None:
    """Train both and print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--epochs", type=int, default=Language.epochs)
    given = parser.parse_args()
    run = blitz.train("language", storage=given.storage, epochs=given.epochs, **{"data.root": given.root})
    recipe = run.recipe
    assert isinstance(recipe, Language)
    found = run.evaluate("test")["perplexity"]
    counted = KneserNey(_texts(recipe, "train"), len(recipe.vocabulary)).perplexity(_texts(recipe, "test"))
    print(f"perplexity of a token on test: language {found:.2f}, interpolated Kneser-Ney of order 3 {counted:.2f}")


if __name__ == "__main__":
    main()
