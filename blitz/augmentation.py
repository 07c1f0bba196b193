"""Augmentation of images, as settings that recipes over images share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data import mixing, policies
from blitz.data.crops import Crops, recolored
from blitz.errors import require
from blitz.fields import may_change
from blitz.randomness import Draws
from blitz.recipe import Batch, Recipe

# The columns of a row's random numbers.
_CROP, _COLOR, _ERASE, _SHIFT = (slice(0, 5), slice(5, 7), slice(7, 12), slice(12, 14))
_MIX, _BETA = slice(14, 17), slice(17, 17 + mixing.BETA_DRAWS)
_POLICY = _BETA.stop
_PARTNER, _OWN_SHARE = "partner_targets", "own_share"
"""Columns of a batch of mixed rows: the targets of each row's partner, and the share that is left of its own."""


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation in training, by the seed, the epoch and the row; and views of an image in evaluation."""

    flip: bool | None = None
    """Mirror half of the images; by default for classes and labels only."""
    min_area: float | None = None
    """The smallest share of the image's area that a crop takes, which is scaled to the input size: 1 never zooms in. By
    default 0.35 for classes and labels, else 1."""
    color: float = 0.0
    """Change brightness and contrast by up to this share."""
    shift: int = 0
    """Shift by up to this many pixels in both directions; what is beyond the border is reflected."""
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Operations such as rotation and contrast: randaugment takes some of one strength, trivialaugment one of any."""
    operations: int = 2
    """For randaugment: operations on each image."""
    strength: int = 9
    """For randaugment: from 0 to 30."""
    erase: float = 0.0
    """Random erasing: the share of the images in which a rectangle is erased."""
    mixup: float | None = None
    """Mix each image and its target with another row's: the alpha of the beta distribution of their shares, such as
    0.2, and at most 1."""
    cutmix: float | None = None
    """Replace a square of each image by another row's: alpha as for mixup, usually 1. With both, each is for half of
    the images."""
    first_size: int | None = None
    """Progressive resizing: the side in pixels of the images in the first epoch; it grows to the full size."""
    growing_epochs: int = 5
    """For --augmentation.first-size: the epoch, counted from 0, that has the full size for the first time."""
    views: Literal["one", "flip", "crops"] = may_change("one")
    """Test-time augmentation: average the predictions of an image over it and its mirror image, or over ten views: the
    corners and the middle, each mirrored too."""

    def __post_init__(self) -> None:
        area = self.min_area
        require(area is None or 0 < area <= 1, f"--augmentation.min-area is {area}; it must be above 0 and at most 1")
        for name, share in (("color", self.color), ("erase", self.erase)):
            require(0 <= share <= 1, f"--augmentation.{name} is {share}; it must be in [0, 1]")
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            require(alpha is None or 0 < alpha <= 1, f"--augmentation.{name} is {alpha}; it must be in (0, 1]")
        require(self.shift >= 0, f"--augmentation.shift is {self.shift}; it must not be below 0")
        require(1 <= self.operations <= 14, f"--augmentation.operations is {self.operations}; it must be in [1, 14]")
        most = policies.STRENGTHS - 1
        require(0 <= self.strength <= most, f"--augmentation.strength is {self.strength}; it must be in [0, {most}]")
        epochs = self.growing_epochs
        require(epochs >= 1, f"--augmentation.growing-epochs is {epochs}; it must be at least 1")

    def check(
        self, *, size: int, decoded: int | None = None, has_points: bool = False, fixed_size: bool = False
    ) -> None:
        """Refuse what does not go with images of `size` pixels, with points in them, or with a model of that size only.

        Raises:
            UserError: if something does not.
        """
        first = self.first_size
        require(
            first is None or 1 <= first <= size,
            f"--augmentation.first-size is {first}; it must be from 1 to the full size, {size}",
        )
        require(first is None or not fixed_size, "--augmentation.first-size: this model takes one size; leave it out")
        require(
            self.views != "crops" or (decoded or size) > size,
            f"--augmentation.views crops: images are no larger than the {size} pixels that the model takes; give flip",
        )
        if has_points:
            moving = {
                "flip": bool(self.flip),
                "policy": self.policy != "none",
                "mixup": self.mixup is not None,
                "cutmix": self.cutmix is not None,
                "views": self.views != "one",
            }
            given = [f"--augmentation.{name}" for name, is_given in moving.items() if is_given]
            why = "swaps or moves points, which cannot follow" if given != ["--augmentation.flip"] else ""
            why = why or "would swap left and right points, whose names it cannot swap"
            require(not given, f"{' and '.join(given)} {why}; leave it out")

    @property
    def mixes(self) -> bool:
        """Whether rows are mixed with others."""
        return self.mixup is not None or self.cutmix is not None

    def applied(
        self,
        batch: Batch,
        draws: Draws,
        *,
        size: int,
        classifies: bool = True,
        moved: Callable[[Batch, Crops], Batch] = lambda batch, crops: batch,
    ) -> Batch:
        """A batch whose `inputs`, pixels from 0 to 255, are augmented and of `size` or less; `moved` moves the rest.

        With mixed rows, `loss_of_mixed` is their loss.
        """
        images, u = batch["inputs"], draws(_POLICY if self.mixes else _SHIFT.stop)
        flip = classifies if self.flip is None else self.flip
        min_area = self.min_area or (0.35 if classifies else 1.0)
        if flip or min_area < 1 or self.shift or images.shape[-1] > size:
            share = size / images.shape[-1]
            crops = Crops.random(u[:, _CROP], share=share, min_area=min_area, flip=flip)
            crops = crops.shifted(u[:, _SHIFT], self.shift, size) if self.shift else crops
            batch, images = moved(batch, crops), crops.of(images, size)
        small = self._size(draws.epoch, size)
        if small < size:
            images = F.interpolate(images.float(), size=(small, small), mode="bilinear", antialias=True)
        if self.color:
            images = recolored(images, u[:, _COLOR], self.color)
        if self.policy != "none":
            count = self.operations if self.policy == "randaugment" else 1
            chosen = draws(_POLICY + count * policies.DRAWS)[:, _POLICY:]
            images = policies.augmented(images.float().round().byte(), chosen, self.policy, self.strength)
        if self.erase:
            images = mixing.erased(images.float(), u[:, _ERASE], self.erase)
        batch = {**batch, "inputs": images}
        return self._mixed(batch, u, draws.partners) if self.mixes else batch

    def _size(self, epoch: int, size: int) -> int:
        """Side of the images in an epoch: a multiple of 8 on the way from the first size to the full one."""
        if self.first_size is None or epoch >= self.growing_epochs:
            return size
        grown = self.first_size + (size - self.first_size) * epoch / self.growing_epochs
        return self.first_size if epoch == 0 else min(size, round(grown / 8) * 8)

    def _mixed(self, batch: Batch, u: Tensor, partners: Tensor) -> Batch:
        images = batch["inputs"].float()
        others, which = images[partners], u[:, _MIX]
        alphas = [alpha for alpha in (self.mixup, self.cutmix) if alpha is not None]
        shares = [mixing.beta(u[:, _BETA], alpha) for alpha in alphas]
        if self.cutmix is None:
            images, own = mixing.mixed(images, others, shares[0]), shares[0]
        else:
            cut, own = mixing.cut_mixed(images, others, which[:, 1:], shares[-1])
            if self.mixup is not None:
                is_cut = which[:, 0] < 0.5
                own = torch.where(is_cut, own, shares[0])
                cut = torch.where(is_cut[:, None, None, None], cut, mixing.mixed(images, others, shares[0]))
            images = cut
        return {**batch, "inputs": images, _PARTNER: batch["targets"][partners], _OWN_SHARE: own}

    def outputs(self, model: nn.Module, images: Tensor, *, classifies: bool) -> Tensor:
        """The model's outputs for images, (batch, channels, side, side), or for `five_crops` of them.

        In evaluation over several views they are averaged: of classes the probabilities, whose logarithms are returned.
        """
        if self.views == "one" or model.training:
            outputs: Tensor = model(images)
            return outputs
        images = images if images.dim() == 5 else images[:, None]
        images = torch.cat([images, images.flip(-1)], dim=1)
        count = images.shape[1]
        of_views: Tensor = model(images.flatten(0, 1)).unflatten(0, (-1, count))
        return of_views.log_softmax(2).logsumexp(1) - math.log(count) if classifies else of_views.mean(1)


@dataclass(frozen=True)
class AugmentsImages(Recipe):
    """A recipe over images that are augmented."""

    augmentation: Augmentation = Augmentation()

    @property
    def rows_together(self) -> int:
        """2 if rows are mixed with others."""
        return 2 if self.augmentation.mixes else 1


def loss_of_mixed(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, batch: Batch) -> Tensor:
    """The loss of each row by `loss(outputs, targets)`: of a mixed row that of both targets, by their shares.

    For cross entropy and for squared errors the gradient is that of the mixed target.
    """
    losses = loss(outputs, batch["targets"])
    if _PARTNER not in batch:
        return losses
    own = batch[_OWN_SHARE]
    return own * losses + (1 - own) * loss(outputs, batch[_PARTNER])
