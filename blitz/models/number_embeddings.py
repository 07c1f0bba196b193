"""Numbers as vectors: robust scaling, and the embeddings that tabular networks learn for each number."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_LARGEST = 3.0
"""Scaled numbers stay below this: RealMLP's smooth clipping."""


def robust_scale(knots: Sequence[float]) -> tuple[float, float]:
    """The centre and the factor that RealMLP scales a number by (Holzmüller et al. 2024): (number - centre) · factor.

    `knots` are quantiles at evenly spaced levels, 4n + 1 of them. The centre is their median, the factor one over the
    range between quartiles; where that is empty, two over the whole range; where that is empty too, 0.
    """
    quarter = (len(knots) - 1) // 4
    low, centre, high = knots[quarter], knots[2 * quarter], knots[3 * quarter]
    spread = high - low or 0.5 * (knots[-1] - knots[0])
    return centre, 1 / spread if spread and math.isfinite(1 / spread) else 0.0


def clipped(scaled: Tensor) -> Tensor:
    """Smooth clipping to (-3, 3), the identity near 0, so that an outlier does not dominate (ibid.)."""
    # Avoids overflow of the square.
    scaled = scaled.clamp(-1e15, 1e15)
    found: Tensor = scaled / (1 + (scaled / _LARGEST).square()).sqrt()
    return found


def scaled_knots(knots: Sequence[float]) -> Tensor:
    """The distinct quantiles of a number, scaled and clipped as the number itself: ascending, float32."""
    centre, factor = robust_scale(knots)
    scaled = clipped((torch.tensor(knots, dtype=torch.float64) - centre) * factor).float()
    distinct: Tensor = scaled.unique()
    return distinct


def embedded_rows(embeddings: nn.Module | None, count: int, numbers: Tensor, categories: Tensor) -> Tensor:
    """Embeddings of the first `count` numbers, the other numbers and the categories' columns: (batch, width)."""
    categories = categories.to(numbers.dtype)
    if embeddings is None:
        return torch.cat([numbers, categories], 1)
    return torch.cat([embeddings(numbers[:, :count]).flatten(1), numbers[:, count:], categories], 1)


class PiecewiseLinearEncoding(nn.Module):
    """Piecewise-linear encoding of numbers: (batch, numbers) → (batch, numbers, bins).

    Bins left of a number are 1, those right of it 0, its own the share of the bin that is left of it (Gorishniy et al.
    2022, "On Embeddings for Numerical Features in Tabular Deep Learning"). Beyond the first and the last edge the outer
    bins continue linearly for once their width; further out they are constant, because a narrow bin would otherwise
    blow up an outlier.

    Args:
        edges: for each number the edges of its bins, ascending: one edge alone is a constant, which is always 0.
    """

    def __init__(self, edges: Sequence[Tensor]) -> None:
        super().__init__()
        bins = max(1, *(len(own) - 1 for own in edges))
        slopes, offsets = torch.zeros(2, len(edges), bins)
        # Unused bins have slope 0.
        least, most = torch.zeros(len(edges), bins), torch.ones(len(edges), bins)
        for row, own in enumerate(edges):
            count = len(own) - 1
            if count > 0:
                slopes[row, :count] = 1 / own.diff()
                offsets[row, :count] = -own[:-1] / own.diff()
                least[row, 0], most[row, count - 1] = -1, 2
        for name, value in (("slopes", slopes), ("offsets", offsets), ("least", least), ("most", most)):
            self.register_buffer(name, value, persistent=False)

    slopes: Tensor
    offsets: Tensor
    least: Tensor
    most: Tensor

    @property
    def bins(self) -> int:
        """The largest number of bins."""
        return self.slopes.shape[1]

    def forward(self, numbers: Tensor) -> Tensor:
        """The encoding, of shape (batch, numbers, bins)."""
        inside = torch.addcmul(self.offsets, self.slopes, numbers[..., None])
        return torch.minimum(torch.maximum(inside, self.least), self.most)


class PiecewiseLinearEmbeddings(nn.Module):
    """A vector for each number, linear in each of its bins: (batch, numbers) → (batch, numbers, width).

    Linear in the number at first; the part that depends on the bins starts at 0 (version B of `rtdl_num_embeddings`, as
    TabM uses it: Gorishniy et al. 2024).
    """

    def __init__(self, edges: Sequence[Tensor], width: int) -> None:
        super().__init__()
        self.encoding = PiecewiseLinearEncoding(edges)
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(len(edges), width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(edges), width).uniform_(-bound, bound))
        self.bin_weight = nn.Parameter(torch.zeros(len(edges), self.encoding.bins, width))

    def forward(self, numbers: Tensor) -> Tensor:
        """Embeddings of shape (batch, numbers, width)."""
        binned = torch.einsum("bnk,nkw->bnw", self.encoding(numbers), self.bin_weight)
        return torch.addcmul(self.bias, self.weight, numbers[..., None]) + binned


class Tuned(nn.Module):
    """A tensor that is learned at `factor` times the learning rate: start + factor · change.

    Under Adam, whose step does not depend on the gradient's size, this is a learning rate of its own within one
    parameter group. Weight decay pulls towards `start`.
    """

    def __init__(self, start: Tensor, factor: float) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.factor = factor
        self.change = nn.Parameter(torch.zeros_like(start))

    start: Tensor

    def forward(self) -> Tensor:
        """The tensor."""
        return torch.add(self.start, self.change, alpha=self.factor)


class PeriodicEmbeddings(nn.Module):
    """RealMLP's PBLD: cosines of each number, a linear layer, and the number itself (Holzmüller et al. 2024).

    (batch, numbers) → (batch, numbers, width). Learned at a tenth of the learning rate.
    """

    def __init__(self, numbers: int, *, frequencies: int = 16, width: int = 4, sigma: float = 0.1) -> None:
        super().__init__()
        bound = frequencies**-0.5
        self.frequencies = Tuned(2 * torch.pi * sigma * torch.randn(numbers, frequencies), 0.1 * 2 * torch.pi)
        self.phases = Tuned(torch.pi * (2 * torch.rand(numbers, frequencies) - 1), 0.1)
        self.weight = Tuned(bound * (2 * torch.rand(numbers, frequencies, width - 1) - 1), 0.1)
        self.bias = Tuned(bound * (2 * torch.rand(numbers, width - 1) - 1), 0.1)

    def forward(self, numbers: Tensor) -> Tensor:
        """Embeddings of shape (batch, numbers, width)."""
        waves = torch.addcmul(self.phases(), self.frequencies(), numbers[..., None]).cos()
        mixed = torch.einsum("bnk,nkw->bnw", waves, self.weight()) + self.bias()
        return torch.cat([mixed, numbers[..., None]], 2)
