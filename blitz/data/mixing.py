"""Images of a batch with rectangles erased, and mixed in pairs: random erasing, mixup and CutMix."""

import math

import torch
from torch import Tensor

_ERASED_AREA, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)
_TRIES = 16
BETA_DRAWS = 2 * _TRIES
"""Random numbers for one of a beta distribution."""


def beta(u: Tensor, alpha: float) -> Tensor:
    """Numbers of the distribution Beta(alpha, alpha), (batch,), for `u` of shape (batch, BETA_DRAWS).

    By rejection (Jöhnk 1964), which an alpha of at most 1 rejects at most half of the time. The last of 16 tries counts
    in any case.
    """
    x, y = (u.clamp(min=2**-25).log() / alpha).unflatten(1, (_TRIES, 2)).unbind(2)
    accepted = x.exp() + y.exp() <= 1
    accepted[:, -1] = True
    first = accepted.int().argmax(dim=1, keepdim=True)
    # x / (x + y), of logarithms.
    shares: Tensor = (x - y).sigmoid().gather(1, first).squeeze(1)
    return shares


def erased(images: Tensor, u: Tensor, share: float) -> Tensor:
    """Images with a rectangle in the mean colour of each, in a `share` of them; `u` is of shape (batch, 5).

    It takes 2 to 33 % of the area, at 3:10 to 33:10 (Zhong et al. 2017), and is no longer than the image.
    """
    side = images.shape[-1]
    area = _between(u[:, 1], *_ERASED_AREA)
    # Uniform in its logarithm.
    ratio = _between(u[:, 2], *map(math.log, _ERASED_RATIO)).exp()
    sides = side * torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=1).clamp(max=1)
    first = ((side + 1 - sides.round()) * u[:, 3:5]).floor()
    inside = _rectangles(first, first + sides.round(), side) & (u[:, 0] < share)[:, None, None, None]
    return torch.where(inside, images.mean(dim=(2, 3), keepdim=True), images)


def mixed(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """mixup (Zhang et al. 2017): each image with another one; `share`, (batch,), is its own."""
    return torch.lerp(others, images, share[:, None, None, None])


def cut_mixed(images: Tensor, others: Tensor, u: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """CutMix (Yun et al. 2019): a square of another image within each; `share`, (batch,), is left of its own.

    `u`, (batch, 2), is the square's centre. Returns the images, and what is left in fact, since a square may stick out.
    """
    side = images.shape[-1]
    half = (0.5 * side * (1 - share).sqrt())[:, None].floor()
    centre = (u * side).floor()
    first, last = ((centre + each).clamp(0, side) for each in (-half, half))
    own = 1 - (last - first).prod(dim=1) / side**2
    return torch.where(_rectangles(first, last, side), others, images), own


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * u


def _rectangles(first: Tensor, last: Tensor, side: int) -> Tensor:
    """Whether each pixel lies between two corners, both (batch, 2) as x and y: bool, (batch, 1, side, side)."""
    at = torch.arange(side, device=first.device)
    x, y = ((at >= first[:, axis, None]) & (at < last[:, axis, None]) for axis in (0, 1))
    return (y[:, :, None] & x[:, None, :])[:, None]
