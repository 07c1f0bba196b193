"""The perplexity of the tokens of texts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from blitz.data.text.vocabulary import PAD
from blitz.outputs.metrics import Sums


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of a token of `column`, its end included; a row's loss is the sum over them by `loss_tokens`."""

    column: str
    loss_tokens: float
    best: str = "perplexity"
    higher_is_better: bool = False

    def sums(self, outputs: Any, batch: Mapping[str, Tensor]) -> Sums:
        """`tokens`, the number of them."""
        return {"tokens": batch[self.column].ne(PAD).sum()}

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`perplexity`."""
        return {"perplexity": perplexity_of(sums["loss"], sums["tokens"], loss_tokens=self.loss_tokens)}


def perplexity_of(loss: Tensor, tokens: Tensor, *, loss_tokens: float) -> float:
    """The perplexity of `tokens` tokens, if the loss is the sum over them by `loss_tokens`."""
    return math.exp(min(loss.item() * loss_tokens / tokens.item(), 700.0))
