"""Categories as numbers: one-hot where they are few, embeddings where they are many."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Categories(nn.Module):
    """(batch, categories) of codes → (batch, width): column c holds codes below `codes[c]`.

    Code 0, a missing or unknown value, is all zeros. A column of two values is -1 or 1, one of at most `one_hot` values
    one-hot; one of more has an embedding.
    """

    def __init__(self, codes: Sequence[int], *, one_hot: int, embedding_width: int) -> None:
        super().__init__()
        self.codes = tuple(codes)
        self.one_hot = one_hot
        many = [column for column, count in enumerate(codes) if count - 1 > one_hot]
        self.columns = tuple(many)
        embeddings = [nn.Embedding(codes[column], embedding_width) for column in many]
        self.embeddings = nn.ModuleList(embeddings)
        for embedding in embeddings:
            # Small, because the embedding of a rare value stays close to its random start.
            nn.init.normal_(embedding.weight, std=0.1)
            # Code 0 may never occur in training; it then adds zeros instead of random numbers.
            nn.init.zeros_(embedding.weight[0])
        widths = [1 if count == 3 else count - 1 for count in codes]
        self.widths = tuple(
            embedding_width if count - 1 > one_hot else width for count, width in zip(codes, widths, strict=True)
        )
        """How many numbers each column becomes."""

    @property
    def width(self) -> int:
        """Width of the output."""
        return sum(self.widths)

    def forward(self, categories: Tensor) -> Tensor:
        """Numbers of shape (batch, width)."""
        if not self.codes:
            return categories.float()
        parts: list[Tensor] = []
        embeddings = dict(zip(self.columns, self.embeddings, strict=True))
        for column, count in enumerate(self.codes):
            own = categories[:, column, None]
            if column in embeddings:
                parts.append(embeddings[column](own[:, 0]))
            elif count == 3:
                parts.append((own == 2).float() - (own == 1).float())
            else:
                parts.append((own == torch.arange(1, count, device=own.device)).float())
        return torch.cat(parts, 1)
