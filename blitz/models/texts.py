"""A model of a table that also has columns of text."""

import torch
from torch import Tensor, nn

WIDTH = 16
"""Numbers that each column of text becomes."""


class WithTexts(nn.Module):
    """`table`, a model of numbers and categories, with the mean embedding of the pieces of each text as more numbers.

    (batch, numbers), (batch, categories) and (batch, texts, pieces) → what `table` gives for (batch, numbers + texts ·
    WIDTH) and the categories. Piece 0 is none.
    """

    def __init__(self, table: nn.Module, *, pieces: int) -> None:
        super().__init__()
        self.table = table
        self.embedding = nn.Embedding(pieces, WIDTH)
        with torch.no_grad():
            self.embedding.weight[0] = 0

    def forward(self, numbers: Tensor, categories: Tensor, texts: Tensor) -> Tensor:
        """The outputs of the table's model."""
        there = (texts > 0).to(numbers.dtype)
        total = (self.embedding(texts) * there[..., None]).sum(2)
        means = total / there.sum(2)[..., None].clamp(min=1)
        outputs: Tensor = self.table(torch.cat([numbers, means.flatten(1).to(numbers.dtype)], 1), categories)
        return outputs
