"""The common part of translation models: one embedding for all tokens, also of the scores; greedy search."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.models.loops import Carried, while_loop

PAD, BEGIN, END = 0, 1, 2
"""The special tokens of `blitz.data.text.vocabulary`."""

State = list[Tensor]


@dataclass(frozen=True)
class Translation:
    """The model's outputs for a batch; `tokens` and `attention` only in evaluation and prediction."""

    scores: Tensor | None
    """(tokens of the targets, vocabulary), if there are targets."""
    tokens: Tensor | None = None
    """(batch, max_tokens): the translation by greedy search."""
    attention: Tensor | None = None
    """(batch, max_tokens, source length): the attention of each token."""


class Translator(nn.Module, ABC):
    """(batch, length) tokens of one language → scores of those of another, with one vocabulary for both.

    Rows are padded at their ends. One embedding serves both languages and, transposed, the scores (Press & Wolf 2017).
    """

    def __init__(self, *, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.zeros_(self.embedding.weight[PAD])
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout = nn.Dropout(dropout)

    def forward(self, source: Tensor, target: Tensor, forced: Tensor | None = None) -> Tensor:
        """Scores (tokens, vocabulary) for the tokens of `target` that are not padding, row by row.

        Each is predicted from the target's tokens before it, or where `forced` (batch, length) is false from the
        model's own prediction.
        """
        kept = target != PAD
        given = F.pad(target[:, :-1], (1, 0), value=BEGIN)
        return self.scores(self.features(source, given, forced)[kept])

    def scores(self, features: Tensor) -> Tensor:
        """(…, width) → (…, vocabulary)."""
        return F.linear(self.dropout(features), self.embedding.weight, self.bias)

    @abstractmethod
    def features(self, source: Tensor, given: Tensor, forced: Tensor | None) -> Tensor:
        """(batch, length, width): features of the next token after each of `given` (batch, length)."""

    @abstractmethod
    def start(self, source: Tensor, length: int) -> tuple[State, State]:
        """The state of a search of at most `length` tokens: a part that stays fixed, and a part that steps change."""

    @abstractmethod
    def step(self, token: Tensor, position: Tensor, fixed: State, state: State) -> tuple[Tensor, Tensor, State]:
        """Scores (batch, vocabulary) of what follows `token` (batch,) at `position` (1,), attention, and the state.

        Attention is (batch, source length); each row sums to 1 over the tokens that are not padding.
        """


class GreedySearch(nn.Module):
    """Greedy decoding until each row has ended: the whole search, with its loop, as a module."""

    def __init__(self, model: Translator, length: int) -> None:
        super().__init__()
        self.model, self.length = model, length

    def forward(self, source: Tensor) -> Tensor:
        """(batch, source length) int64 → (batch, length) int64: tokens, the end, and padding."""
        return self.search(source)[0]

    def search(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (batch, length), and the attention of each, (batch, length, source length)."""
        fixed, state = self.model.start(source, self.length)
        token = torch.full_like(source[:, 0], BEGIN)
        tokens = torch.full_like(source[:, :1], PAD).repeat(1, self.length)
        attention = torch.zeros_like(source, dtype=self.model.bias.dtype)[:, None].repeat(1, self.length, 1)

        def more(position: Tensor, token: Tensor, ended: Tensor, *_: Tensor) -> Tensor:
            return ((position < self.length) & ~ended.all()).squeeze()

        def turn(
            position: Tensor, token: Tensor, ended: Tensor, tokens: Tensor, seen: Tensor, *state: Tensor
        ) -> Carried:
            scores, weights, after = self.model.step(token, position, fixed, list(state))
            token = scores.argmax(1).masked_fill(ended, PAD)
            tokens = tokens.index_copy(1, position, token[:, None])
            seen = seen.index_copy(1, position, weights[:, None].to(seen.dtype))
            return position + 1, token, ended | (token == END), tokens, seen, *after

        carried = (torch.zeros_like(token[:1]), token, token == END, tokens, attention, *state)
        _, _, _, tokens, attention, *_ = while_loop(more, turn, carried)
        return tokens, attention


def trimmed(tokens: Tensor) -> Tensor:
    """`tokens` without the columns at the end that are padding in every row."""
    return tokens[:, : int(tokens.ne(PAD).sum(1).max())].long()
