"""chrF of translations (Popović 2015), from counts that add up."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blitz.data.text.vocabulary import Vocabulary
from blitz.outputs.metrics import Sums

_ORDERS, _BETA = 6, 2


@dataclass(frozen=True)
class ChrF:
    """chrF2 of translations: F2 of their character n-grams (Popović 2015), from counts of the whole corpus."""

    vocabulary: Vocabulary

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return ("chrf",)

    def sums(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Sums:
        """`chrf`: of 1- to 6-grams those of the translations, of the references, and in both; (6, 3)."""
        references = [bytes(row).rstrip(b"\0").decode() for row in batch["reference"].tolist()]
        translations = self.vocabulary.decode(outputs.tokens.tolist())  # type: ignore[attr-defined]
        return {"chrf": chrf_counts(translations, references).to(batch["reference"].device)}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`chrf`, from 0 to 100."""
        return {"chrf": chrf_of(sums["chrf"])}


def chrf_counts(translations: Sequence[str], references: Sequence[str]) -> Tensor:
    """Counts of character n-grams without white space, (6, 3): of translations, of references, and in both."""
    counts = torch.zeros(_ORDERS, 3, dtype=torch.int64)
    for each in zip(translations, references, strict=True):
        translation, reference = ("".join(text.split()) for text in each)
        for order in range(1, _ORDERS + 1):
            one, other = (
                Counter(text[start : start + order] for start in range(len(text) - order + 1))
                for text in (translation, reference)
            )
            # As sacrebleu does, n-grams longer than the reference do not count against the translation.
            given = one.total() if other else 0
            counts[order - 1] += torch.tensor([given, other.total(), (one & other).total()])
    return counts


def chrf_of(counts: Tensor) -> float:
    """chrF2 from such counts: of the mean precision and the mean recall over the n-grams that occur."""
    occurring = [row for row in counts.tolist() if row[0] and row[1]]
    if not occurring:
        return 0.0
    precision = sum(both / given for given, _, both in occurring) / len(occurring)
    recall = sum(both / wanted for _, wanted, both in occurring) / len(occurring)
    weight = _BETA**2
    return 100 * (1 + weight) * precision * recall / (weight * precision + recall) if precision + recall else 0.0
