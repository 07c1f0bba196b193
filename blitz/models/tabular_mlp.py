"""A multilayer perceptron over numbers and categories."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from blitz.models.mlp import ACTIVATIONS, Activation


def standardised(
    numbers: Tensor, *, means: Sequence[float], stds: Sequence[float], has_missing: Sequence[bool]
) -> Tensor:
    """(number - mean) / std as float32, and 0 for a missing one, which is NaN.

    (batch, numbers) float64 → (batch, numbers + those with missing ones): the latter flag where a number was missing.
    """
    missing, flagged = numbers.isnan(), [column for column, has in enumerate(has_missing) if has]
    scaled = (numbers - numbers.new_tensor(means)) / numbers.new_tensor(stds)
    return torch.cat([scaled.masked_fill(missing, 0), missing[:, flagged]], 1).float()


def embedding_width(codes: int) -> int:
    """Width of the embedding of a category of so many codes: fastai's `emb_sz_rule` (Howard & Gugger 2020)."""
    return int(min(600, round(1.6 * codes**0.56)))


class TabularMLP(nn.Module):
    """An embedding for each category, beside the numbers; hidden layers, each with dropout; one linear layer.

    (batch, numbers) and (batch, categories) → (batch, outputs), where category c holds codes below `codes[c]`.
    """

    def __init__(
        self,
        *,
        numbers: int,
        codes: Sequence[int],
        hidden: Sequence[int],
        dropout: float,
        outputs: int,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        embeddings = [nn.Embedding(count, embedding_width(count)) for count in codes]
        for embedding in embeddings:
            # Code 0 may never occur in training: then it adds nothing rather than random numbers.
            nn.init.zeros_(embedding.weight[0])
        self.embeddings = nn.ModuleList(embeddings)
        widths = [numbers + sum(embedding_width(count) for count in codes), *hidden]
        between = ACTIVATIONS[activation]
        layers = [(nn.Linear(before, after), between(), nn.Dropout(dropout)) for before, after in pairwise(widths)]
        self.layers = nn.Sequential(*(module for layer in layers for module in layer), nn.Linear(widths[-1], outputs))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Outputs of shape (batch, outputs)."""
        embedded = [embedding(categories[:, column]) for column, embedding in enumerate(self.embeddings)]
        outputs: Tensor = self.layers(torch.cat([numbers, *embedded], 1))
        return outputs
