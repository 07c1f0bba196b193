"""RealMLP: a multilayer perceptron whose details were tuned on many tables.

Holzmüller, Grinsztajn & Steinwart 2024, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data":
their RealMLP-TD, written anew. Rates of learning of its own for some weights are in the weights (`Tuned`), so that one
optimizer group learns all, as packs need it.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.models.categories import Categories
from blitz.models.number_embeddings import PeriodicEmbeddings, Tuned, embedded_rows

_INITIAL_ROWS = 512
"""Rows that are drawn to scale the initial weights."""


class NtkLinear(nn.Module):
    """A linear layer whose weights are of size 1 and are divided by the root of the inputs (Jacot et al. 2018)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = Tuned(torch.zeros(outputs), 0.1)
        self._factor = inputs**-0.5

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of shape (batch, outputs)."""
        return F.linear(inputs, self.weight * self._factor, self.bias())

    @torch.no_grad()
    def fit_start(self, inputs: Tensor) -> Tensor:
        """Scale the initial weights so that the outputs for `inputs` vary by 1, and place the biases: He+5.

        The kink of a unit lies at the mean of five of the rows, weighted at random.
        """
        outputs = F.linear(inputs, self.weight * self._factor)
        scale = outputs.std(0, correction=0).clamp_min(1e-6)
        self.weight.div_(scale[:, None])
        outputs.div_(scale)
        units = outputs.shape[1]
        shares = torch.empty(5, units).exponential_()
        rows = torch.randint(len(outputs), (5, units))
        self.bias.start.copy_(-(outputs.gather(0, rows) * (shares / shares.sum(0))).sum(0))
        return self(inputs)  # type: ignore[no-any-return]


class ParametricActivation(nn.Module):
    """A learned interpolation, for each unit, between the identity and SELU or Mish."""

    def __init__(self, units: int, *, classifies: bool) -> None:
        super().__init__()
        self.share = Tuned(torch.ones(units), 0.1)
        self._function = F.selu if classifies else F.mish

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of the shape of the inputs."""
        return torch.lerp(inputs, self._function(inputs), self.share().expand_as(inputs))


class RealMLP(nn.Module):
    """(batch, numbers) and (batch, categories) → in training (batch, 1, outputs), else (batch, outputs).

    Args:
        numbers: columns of numbers; the first of them have `quantiles` and are embedded, the others are flags.
        quantiles: of each embedded number, at evenly spaced levels: the initial weights are scaled to rows drawn
            from these, each number on its own.
        codes: for each category the number of its codes; 0 is missing or unknown.
        outputs: classes, or 1 number.
    """

    def __init__(
        self,
        *,
        numbers: int,
        quantiles: Sequence[Tensor],
        codes: Sequence[int],
        outputs: int,
        hidden: Sequence[int],
        dropout: float,
        classifies: bool,
    ) -> None:
        super().__init__()
        self.embedded = len(quantiles)
        self.embeddings = PeriodicEmbeddings(self.embedded) if quantiles else None
        self.categories = Categories(codes, one_hot=9, embedding_width=8)
        flags = numbers - len(quantiles)
        inputs = 4 * len(quantiles) + flags + self.categories.width
        self.scale = Tuned(torch.ones(inputs), 6.0)
        widths = [inputs, *hidden]
        self.layers = nn.ModuleList(NtkLinear(before, after) for before, after in pairwise(widths))
        self.activations = nn.ModuleList(ParametricActivation(width, classifies=classifies) for width in hidden)
        self.dropout = nn.Dropout(dropout)
        self.last = NtkLinear(widths[-1], outputs)
        drawn = [own[torch.randint(len(own), (_INITIAL_ROWS,))] for own in quantiles]
        drawn += [(torch.rand(_INITIAL_ROWS) < 0.1).float() for _ in range(flags)]
        chosen = [torch.randint(min(1, count - 1), count, (_INITIAL_ROWS,)) for count in codes]
        self._fit_start(
            torch.stack(drawn, 1) if drawn else torch.zeros(_INITIAL_ROWS, 0),
            torch.stack(chosen, 1) if chosen else torch.zeros(_INITIAL_ROWS, 0, dtype=torch.int64),
        )

    @torch.no_grad()
    def _fit_start(self, numbers: Tensor, categories: Tensor) -> None:
        hidden = self._inputs(numbers, categories)
        for layer, activation in zip(self.layers, self.activations, strict=True):
            assert isinstance(layer, NtkLinear)
            hidden = activation(layer.fit_start(hidden))
        self.last.fit_start(hidden)

    def _inputs(self, numbers: Tensor, categories: Tensor) -> Tensor:
        return embedded_rows(self.embeddings, self.embedded, numbers, self.categories(categories))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """The outputs; in training with a dimension for the single member."""
        hidden = self._inputs(numbers, categories) * self.scale()
        for layer, activation in zip(self.layers, self.activations, strict=True):
            hidden = self.dropout(activation(layer(hidden)))
        outputs: Tensor = self.last(hidden)
        return outputs[:, None] if self.training else outputs
