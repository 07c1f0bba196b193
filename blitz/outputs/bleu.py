"""BLEU of translations by sacrebleu, from counts that add up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from blitz.data.text.vocabulary import PAD, Vocabulary
from blitz.extras import extra
from blitz.outputs.metrics import Sums
from blitz.outputs.perplexity import perplexity_of


@dataclass(frozen=True)
class Bleu:
    """Corpus BLEU of whole texts, cased and tokenised by sacrebleu (13a), and the perplexity.

    `reference` in a batch is the text as UTF-8 and zeros, `outputs.tokens` its translation. A row's loss is the sum
    over its target's tokens divided by `loss_tokens`.
    """

    vocabulary: Vocabulary
    loss_tokens: float
    best: str = "bleu"
    higher_is_better: bool = True
    _bleu: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Imported here, because a worker that only trains does not need it.
        with extra("text", what="BLEU"):
            from sacrebleu.metrics.bleu import BLEU

        object.__setattr__(self, "_bleu", BLEU())

    def reported(self) -> tuple[str, ...]:
        """Names that `compute` may give."""
        return ("bleu", "perplexity")

    def sums(self, outputs: Any, batch: Mapping[str, Tensor]) -> Sums:
        """`target_tokens`, and `bleu`: length, reference length, and matches and totals of 1- to 4-grams, (10,)."""
        references = [bytes(row).rstrip(b"\0").decode() for row in batch["reference"].tolist()]
        counts = self.counts(self.vocabulary.decode(outputs.tokens.tolist()), references)
        tokens = batch["target"].ne(PAD).sum()
        return {"target_tokens": tokens, "bleu": torch.tensor(counts, device=tokens.device)}

    def counts(self, translations: Sequence[str], references: Sequence[str]) -> list[int]:
        """The counts of some rows: those of all rows are their sum."""
        score = self._bleu.corpus_score(translations, [references])
        return [score.sys_len, score.ref_len, *score.counts, *score.totals]

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`bleu`, from 0 to 100, and the `perplexity` of a token of the target."""
        length, reference_length, *counts = sums["bleu"].tolist()
        score = self._bleu.compute_bleu(counts[:4], counts[4:], length, reference_length, smooth_method="exp")
        perplexity = perplexity_of(sums["loss"], sums["target_tokens"], loss_tokens=self.loss_tokens)
        return {"bleu": score.score, "perplexity": perplexity}
