"""Opening images with Pillow: refusing some by their header, and converting pixels of every mode to RGB."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

# Opening these runs an external program, such as Ghostscript, on the content of the file.
_PROGRAMS = ("EPS", "WMF")
# Tags of TIFF.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _LOWEST, _HIGHEST = 258, 262, 340, 341
_WHITE_IS_ZERO = 0


class RefusedImage(ValueError):
    """A valid image that is not decoded all the same; the message says why."""


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings about odd metadata, and about large images that are not yet refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@quiet()
def open_image(data: bytes) -> Image.Image:
    """The image of an encoded file; of its bytes only the header is read.

    Raises:
        UnidentifiedImageError: if it is of no known kind.
        RefusedImage: if it is a program, too large, or if its pixels have no known range.
        Exception: whatever else Pillow raises for an incomplete header.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise RefusedImage(f"{reason_of(error).partition(', could')[0]}; make it smaller") from error
    if image.format in _PROGRAMS:
        raise RefusedImage(f"{image.format} is a program that draws, and is not run; save it as PNG")
    if _is_wide(image):
        _range_of(image)
    return image


@quiet()
def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB, rotated by its EXIF tag; the first of several frames.

    Transparency is dropped, and the colour of transparent pixels is kept, as in torchvision.

    Raises:
        Exception: whatever Pillow raises for an incomplete image.
    """
    image.load()
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:
        # Damaged metadata, for which Pillow raises errors of any type, does not affect the pixels.
        turned = image
    if _is_wide(turned):
        turned = _to_eight_bits(np.asarray(turned, np.float64), image)
    return turned.convert("RGB")


def reason_of(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _is_wide(image: Image.Image) -> bool:
    """Whether a pixel is one number of more than 8 bits, which Pillow would clip to 255."""
    return image.mode == "F" or image.mode.startswith("I")


def _to_eight_bits(values: npt.NDArray[np.float64], image: Image.Image) -> Image.Image:
    low, high = _range_of(image)
    scaled = (np.nan_to_num(values, nan=low) - low) * (255 / (high - low))
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        scaled = 255 - scaled
    return Image.fromarray(np.clip(scaled.round(), 0, 255).astype(np.uint8))


def _range_of(image: Image.Image) -> tuple[float, float]:
    """Black and white, as the file documents them: a guess from its pixels would make each image another scale.

    Raises:
        RefusedImage: if it does not document them.
    """
    low, high = _tag(image, _LOWEST), _tag(image, _HIGHEST)
    if low is not None and high is not None and low < high:
        return low, high
    if image.mode.startswith("I;16"):
        # A microscope's 12-bit pixels are stored in 16 bits.
        return 0, 2 ** int(_tag(image, _BITS_PER_SAMPLE) or 16) - 1
    if image.format == "PPM" and image.mode == "I":
        # Pillow has scaled them to this range.
        return 0, 65535
    numbers = "floats" if image.mode == "F" else "signed or 32-bit integers"
    raise RefusedImage(
        f"its pixels are {numbers} of unknown range, without TIFF's tags SMinSampleValue and SMaxSampleValue; "
        "save it with 8 or 16 bits"
    )


def _tag(image: Image.Image, tag: int) -> float | None:
    """A number in a tag of a single-channel TIFF."""
    value = getattr(image, "tag_v2", {}).get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return float(value) if isinstance(value, int | float) else None
