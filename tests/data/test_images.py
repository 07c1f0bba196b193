import io

import numpy as np
import pytest
from PIL import Image

from blitz.data.images import decode_image

RED, BLUE = (250, 0, 0), (0, 0, 250)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def halves(width: int, height: int) -> Image.Image:
    """Red to the left of the middle, and blue to the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, BLUE
    return Image.fromarray(pixels)


def colour_at(pixels: np.ndarray, x: int, y: int) -> str:
    return "red" if pixels[0, y, x] > 150 else "blue" if pixels[2, y, x] > 150 else "other"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("size", [(64, 64), (200, 100), (100, 130), (900, 700)])
def test_images_of_all_kinds_and_sizes_become_squares(format: str, size: tuple[int, int]) -> None:
    for fit in ("crop", "stretch"):
        pixels, frame = decode_image(encoded(halves(*size), format), 48, fit)
        assert pixels.shape == (3, 48, 48)
        assert colour_at(pixels.numpy(), 8, 24) == "red"
        assert colour_at(pixels.numpy(), 40, 24) == "blue"
        assert (frame.x, frame.y) == pytest.approx((size[0] / 2, size[1] / 2), abs=2 + max(size) / 100)
        halves_of = (min(size), min(size)) if fit == "crop" else size
        assert (2 * frame.half_width, 2 * frame.half_height) == pytest.approx(halves_of, rel=0.02)


@pytest.mark.parametrize("size", [(60, 40), (600, 400)])
def test_an_image_is_turned_as_its_camera_was(size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn clockwise by 90°: left comes to the top.
    pixels, frame = decode_image(encoded(halves(*size), "JPEG", exif=exif), 32, "stretch")
    assert colour_at(pixels.numpy(), 16, 4) == "red"
    assert colour_at(pixels.numpy(), 16, 28) == "blue"
    assert 2 * frame.half_width == pytest.approx(size[1], rel=0.02)


def test_a_large_jpeg_that_is_decoded_smaller_looks_as_one_that_is_not() -> None:
    noise = np.random.default_rng(0).integers(0, 255, size=(20, 25, 3), dtype=np.uint8)
    large = Image.fromarray(noise).resize((1000, 800), Image.Resampling.BICUBIC)
    small, _ = decode_image(encoded(large, "JPEG", quality=95), 64, "stretch")
    exact, _ = decode_image(encoded(large, "PNG"), 64, "stretch")
    assert (small.float() - exact.float()).abs().mean() < 4


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "CMYK"])
def test_all_modes_become_rgb(mode: str) -> None:
    pixels, _ = decode_image(encoded(halves(64, 64).convert(mode), "TIFF" if mode == "CMYK" else "PNG"), 64, "crop")
    assert pixels.shape == (3, 64, 64)


def test_sixteen_bits_a_pixel_become_eight() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels, _ = decode_image(encoded(Image.fromarray(ramp), "PNG"), 64, "crop")
    assert pixels[0].float().mean().item() == pytest.approx(127, abs=1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "of no known kind"),
        (b"not an image", "of no known kind"),
        (encoded(halves(300, 200), "JPEG")[:-200], "truncated"),
        (encoded(halves(3000, 2000), "JPEG")[:-2000], "truncated"),
        (encoded(halves(300, 200), "PNG")[:-200], "truncated"),
        (encoded(halves(300, 200), "JPEG")[:100], "runcated"),
    ],
)
def test_what_is_no_whole_image_is_refused_with_the_reason(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=rf"^the image cannot be decoded: .*{says}"):
        decode_image(data, 64, "crop")
