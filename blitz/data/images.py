"""Encoded images to pixels: square, uint8, and no larger than they have to be."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from PIL import UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from blitz.data.pillow import open_image, quiet, reason_of, to_rgb

Fit = Literal["crop", "stretch"]
"""How an image becomes square: `crop` cuts off what is beyond the middle of its longer side, `stretch` takes all."""


class Frame(NamedTuple):
    """The position of a square image in its original: centre and half extent, in pixels of the original."""

    x: float
    y: float
    half_width: float
    half_height: float


def decode_image(data: bytes, side: int, fit: Fit) -> tuple[Tensor, Frame]:
    """RGB pixels, uint8 of shape (3, side, side), rotated by its EXIF tag, and the part of the image that they show.

    Scaled down by area, as `antialias` in torch. A JPEG of twice the size or more is decoded at 1/2, 1/4 or 1/8.

    Raises:
        ValueError: if it is not an image, or not whole; the message says why.
    """
    try:
        pixels, scale = decode_pixels(data, side)
    except Exception as error:
        # Libraries raise errors of any type for bytes that are not a whole image.
        raise ValueError(f"the image cannot be decoded: {_in_short(error)}") from error
    height, width = pixels.shape[1:]
    frame = Frame(width / 2 * scale, height / 2 * scale, width / 2 * scale, height / 2 * scale)
    if fit == "crop" and width != height:
        shorter = min(width, height)
        top, left = (height - shorter) // 2, (width - shorter) // 2
        pixels = pixels[:, top : top + shorter, left : left + shorter]
        half = shorter / 2
        frame = Frame((left + half) * scale, (top + half) * scale, half * scale, half * scale)
    if pixels.shape[1:] != (side, side):
        pixels = F.interpolate(pixels[None], size=(side, side), mode="bilinear", antialias=True)[0]
    return pixels, frame


@quiet()
def decode_pixels(data: bytes, side: int) -> tuple[Tensor, float]:
    """Pixels of shape (3, height, width), and how many of the image's own pixels one of them is wide.

    Raises:
        Exception: of any kind, if it is not an image, or not whole.
    """
    image = open_image(data)
    if image.format == "JPEG" and min(image.size) < 2 * side:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return decode_jpeg(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True), 1.0
    width = image.width
    image.draft("RGB", (side, side))
    scale = width / image.width
    image = to_rgb(image)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1), scale


def _in_short(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is of no known kind"
    # torch's messages start with the location in its own source.
    return reason_of(error).rpartition(", ")[2] if isinstance(error, RuntimeError) else reason_of(error)
