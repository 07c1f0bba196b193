"""Crops of square images and of points in them; at random for training (torch)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Crops:
    """A crop of each image of a batch, in halves of the image's side from its centre.

    What lies at u in the crop, from -1 to 1, lies at `centre + extent * u` in the image; both are of shape (batch, 2),
    x and y. A negative extent mirrors.
    """

    centre: Tensor
    extent: Tensor

    @classmethod
    def random(cls, u: Tensor, *, share: float, min_area: float, flip: bool) -> "Crops":
        """Crops by five random numbers in [0, 1) for each image, `u` of shape (batch, 5).

        With a `min_area` below 1 a crop takes between that share of the image and all of it, 3:4 to 4:3, as in
        torchvision's RandomResizedCrop (Szegedy et al. 2014); else `share` of its side. Its position is random; with
        `flip` half of the crops are mirrored.
        """
        if min_area < 1:
            area, ratio = min_area + (1 - min_area) * u[:, 0], (3 / 4) * (16 / 9) ** u[:, 1]
            extent = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)
        else:
            extent = torch.full_like(u[:, :2], share)
        centre = (2 * u[:, 2:4] - 1) * (1 - extent)
        if flip:
            extent[:, 0] *= torch.where(u[:, 4] < 0.5, -1.0, 1.0)
        return cls(centre, extent)

    def shifted(self, u: Tensor, pixels: int, size: int) -> "Crops":
        """These crops shifted by up to so many whole pixels of `size` a side, by `u` in [0, 1), of shape (batch, 2)."""
        steps = (u * (2 * pixels + 1)).floor() - pixels
        return Crops(self.centre + self.extent.abs() * steps * 2 / size, self.extent)

    def of(self, images: Tensor, size: int) -> Tensor:
        """The crops, float32 of shape (batch, 3, size, size), by bilinear interpolation."""
        theta = torch.cat([torch.diag_embed(self.extent), self.centre[:, :, None]], dim=2)
        grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
        return F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)

    def points(self, points: Tensor) -> Tensor:
        """The coordinates in the crops of points of the images, (batch, 2 · points)."""
        moved = (points.reshape(len(points), -1, 2) - self.centre[:, None]) / self.extent[:, None]
        return moved.reshape(points.shape)

    def frame(self, frame: Tensor) -> Tensor:
        """Centre and half extent of the crops where those of the images are `frame`, (batch, 4)."""
        return torch.cat([frame[:, :2] + self.centre * frame[:, 2:], frame[:, 2:] * self.extent], dim=1)


def middle(images: Tensor, size: int) -> tuple[Tensor, Crops]:
    """The middle of images, `size` pixels a side, and its position in them."""
    side = images.shape[-1]
    first = (side - size) // 2
    # Not `len`, which an export of the model would fix.
    extent = torch.full((images.shape[0], 2), size / side, device=images.device)
    cut = images[:, :, first : first + size, first : first + size]
    # Half a pixel off the centre if the margins differ by one.
    return cut, Crops(torch.full_like(extent, (2 * first + size) / side - 1), extent)


def five_crops(images: Tensor, middle: Tensor) -> Tensor:
    """The middle of images and their corners, of the same size: (batch, 5, channels, size, size)."""
    size, last = middle.shape[-1], images.shape[-1] - middle.shape[-1]
    corners = [images[..., y : y + size, x : x + size] for y in (0, last) for x in (0, last)]
    return torch.stack([middle, *corners], dim=1)


def recolored(images: Tensor, u: Tensor, most: float) -> Tensor:
    """Pixels from 0 to 255 with brightness and contrast times 1 - most to 1 + most, by `u` of shape (batch, 2)."""
    brightness, contrast = (1 + most * (2 * u - 1))[:, :, None, None, None].unbind(1)
    images = images.float() * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean).clamp(0, 255)
