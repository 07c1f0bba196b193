"""Encoded images to pixels: square, uint8, and no larger than they have to be."""

import io
import warnings
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

Fit = Literal["crop", "stretch"]
"""How an image becomes square: `crop` cuts off what is beyond the middle of its longer side, `stretch` takes all."""


class Frame(NamedTuple):
    """Where a square image lies in the one that it was made of: its centre and half its extent, in pixels of that."""

    x: float
    y: float
    half_width: float
    half_height: float


def decode_image(data: bytes, side: int, fit: Fit) -> tuple[Tensor, Frame]:
    """RGB pixels, uint8 of shape (3, side, side), turned as its EXIF tag says, and what part of the image they show.

    Scaled down by area, as `antialias` in torch. A JPEG of twice the size or more is decoded at 1/2, 1/4 or 1/8.

    Raises:
        ValueError: if it is not an image, or not whole; the message says why.
    """
    try:
        with warnings.catch_warnings():
            # Of harmless oddities in metadata.
            warnings.simplefilter("ignore")
            pixels, scale = _decode(data, side)
    except (OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
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


def _decode(data: bytes, side: int) -> tuple[Tensor, float]:
    """Pixels of shape (3, height, width), and how many of the image's own pixels one of them is wide."""
    # Reads the header alone.
    image: Image.Image = Image.open(io.BytesIO(data))
    if image.format == "JPEG" and min(image.size) < 2 * side:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return decode_jpeg(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True), 1.0
    width = image.width
    image.draft("RGB", (side, side))
    scale = width / image.width
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow would clip what is above 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1), scale


def _in_short(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is of no known kind"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    # torch's begin with where in its own source they were raised.
    return text.rpartition(", ")[2] if isinstance(error, RuntimeError) else text
