"""TabM: many multilayer perceptrons in one, which share all weights but for factors of their inputs and outputs.

Gorishniy, Kotelnikov & Babenko 2024, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling"; the
layers are those of the authors' package `tabm`, and tests compare with it. The adapters come from BatchEnsemble (Wen,
Tran & Ba 2020).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.models.categories import Categories
from blitz.models.number_embeddings import PiecewiseLinearEmbeddings, embedded_rows


def averaged(outputs: Tensor, *, classifies: bool) -> Tensor:
    """The average over an ensemble: (batch, members, outputs) → (batch, outputs).

    Of classes the logarithm of the mean probabilities, which are logits as well; of numbers the mean.
    """
    if not classifies:
        return outputs.mean(1)
    return outputs.log_softmax(2).logsumexp(1) - math.log(outputs.shape[1])


class MembersLinear(nn.Module):
    """A linear layer for all members: each has a factor for every input and output, and a bias; the weights are shared.

    (batch, members, inputs) → (batch, members, outputs).

    Args:
        chunks: at first all inputs of a chunk have the same random factor, and so the members see the features of a
            table in different proportions; None starts all factors at 1, and so with members that are equal.
    """

    def __init__(self, inputs: int, outputs: int, *, members: int, chunks: Sequence[int] | None = None) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        factors = torch.ones(members, inputs)
        if chunks is not None:
            factors = torch.randn(members, len(chunks)).repeat_interleave(torch.tensor(chunks), dim=1)
        self.input_factors = nn.Parameter(factors)
        self.output_factors = nn.Parameter(torch.ones(members, outputs))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound).repeat(members, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of shape (batch, members, outputs)."""
        return torch.addcmul(self.bias, F.linear(inputs * self.input_factors, self.weight), self.output_factors)


class TabM(nn.Module):
    """(batch, numbers) and (batch, categories) → in training (batch, members, outputs), else their average.

    Args:
        numbers: columns of numbers; the first of them have `edges` and are embedded, the others are flags.
        edges: the edges of the bins of each embedded number.
        codes: for each category the number of its codes; 0 is missing or unknown.
        outputs: classes, or 1 number.
    """

    def __init__(
        self,
        *,
        numbers: int,
        edges: Sequence[Tensor],
        codes: Sequence[int],
        outputs: int,
        members: int,
        hidden: Sequence[int],
        embedding_width: int,
        dropout: float,
        classifies: bool,
    ) -> None:
        super().__init__()
        self.classifies = classifies
        self.embedded = len(edges)
        self.embeddings = PiecewiseLinearEmbeddings(edges, embedding_width) if edges else None
        self.categories = Categories(codes, one_hot=128, embedding_width=16)
        chunks = [*(embedding_width for _ in edges), *(1 for _ in range(numbers - len(edges))), *self.categories.widths]
        widths = [sum(chunks), *hidden]
        self.layers = nn.ModuleList(
            MembersLinear(before, after, members=members, chunks=None if layer else chunks)
            for layer, (before, after) in enumerate(pairwise(widths))
        )
        self.dropout = dropout
        bound = widths[-1] ** -0.5
        self.last_weight = nn.Parameter(torch.empty(members, widths[-1], outputs).uniform_(-bound, bound))
        self.last_bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """The outputs of each member in training, otherwise their average."""
        hidden = embedded_rows(self.embeddings, self.embedded, numbers, self.categories(categories))[:, None]
        for layer in self.layers:
            hidden = layer(hidden).relu()
            if self.training and self.dropout:
                # One mask for all members, because drawing one for each takes as long as the layer itself.
                hidden = hidden * F.dropout(hidden.new_ones(len(hidden), 1, hidden.shape[2]), self.dropout)
        outputs = torch.einsum("bkd,kdo->bko", hidden, self.last_weight) + self.last_bias
        return outputs if self.training else averaged(outputs, classifies=self.classifies)
