import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blitz.data.csv.reading.image_files import ImageCheck, check_images
from blitz.data.csv.reading.index import index_csv
from blitz.data.csv.reading.reader import CsvOptions
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


RAMP = np.tile(np.linspace(0, 1, 64), (64, 1))
"""From black at the left to white at the right."""
RANGE = {340: 0, 341: 4000}
"""TIFF's tags SMinSampleValue and SMaxSampleValue."""


def ramp(high: float, dtype: str, *, low: float = 0) -> np.ndarray:
    return (low + RAMP * (high - low)).astype(dtype)


def tiff(bits: int, data: bytes, *, order: str = "<", sample_format: int = 1, photometric: int = 1) -> bytes:
    """A grey TIFF of 64 by 64 pixels, of kinds that Pillow reads and does not write."""
    # Width, height, bits, compression, photometric, offset, channels, rows a strip, bytes of the strip, sample format.
    of_tags = {256: 64, 257: 64, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: 64, 279: len(data)}
    of_tags[339] = sample_format
    of_tags[273] = 8 + 2 + 12 * len(of_tags) + 4
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in of_tags.items())
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return start + struct.pack(f"{order}H", len(of_tags)) + entries + bytes(4) + data


def twelve_bits(values: np.ndarray) -> bytes:
    """Two pixels in three bytes, the higher bits first."""
    one, other = values.reshape(-1, 2).T
    return np.stack([one >> 4, (one & 15) << 4 | other >> 8, other & 255], 1).astype(np.uint8).tobytes()


def png_of_16_bits() -> bytes:
    """An RGB PNG of 16 bits a channel, which Pillow does not write."""
    pixels = np.dstack([ramp(65535, ">u2")] * 3).astype(">u2")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def grey(dtype: str, high: float) -> Image.Image:
    return Image.fromarray(ramp(high, dtype))


RAMPS = {
    "16-bit PNG": encoded(grey("u2", 65535), "PNG"),
    "16-bit RGB PNG": png_of_16_bits(),
    "16-bit TIFF": encoded(grey("u2", 65535), "TIFF"),
    "16-bit TIFF, the high byte first": tiff(16, ramp(65535, ">u2").tobytes(), order=">"),
    "16-bit TIFF, compressed": encoded(grey("u2", 65535), "TIFF", compression="tiff_lzw"),
    "16-bit TIFF, white is 0": tiff(16, ramp(0, "<u2", low=65535).tobytes(), photometric=0),
    "12-bit TIFF": tiff(12, twelve_bits(ramp(4095, "u2"))),
    "16-bit PGM": b"P5 64 64 65535\n" + ramp(65535, ">u2").tobytes(),
    "10-bit PGM": b"P5 64 64 1023\n" + ramp(1023, ">u2").tobytes(),
    "integers with their range": encoded(grey("i4", 4000), "TIFF", tiffinfo=RANGE),
    "floats with their range": encoded(grey("f4", 4000), "TIFF", tiffinfo={340: 0.0, 341: 4000.0}),
    "8-bit TIFF, white is 0": tiff(8, ramp(0, "u1", low=255).tobytes(), photometric=0),
    "several frames": encoded(grey("u1", 255), "TIFF", save_all=True, append_images=[grey("u1", 3)]),
    "animated WebP": encoded(grey("u1", 255).convert("RGB"), "WEBP", save_all=True, append_images=[halves(64, 64)]),
    "animated GIF": encoded(grey("u1", 255), "GIF", save_all=True, append_images=[grey("u1", 3)]),
    "MPO": encoded(grey("u1", 255).convert("RGB"), "MPO", save_all=True, append_images=[halves(64, 64)]),
    "CMYK JPEG": encoded(grey("u1", 255).convert("RGB").convert("CMYK"), "JPEG"),
    "grey with alpha": encoded(grey("u1", 255).convert("LA"), "PNG"),
    "palette with transparency": encoded(grey("u1", 255).convert("P"), "PNG", transparency=bytes(range(256))),
}
UNKNOWN_RANGE = {
    "32-bit integers": encoded(grey("i4", 4000), "TIFF"),
    "32-bit integers without a sign": tiff(32, ramp(2**32 - 1, "<u4").tobytes()),
    "16-bit integers with a sign": tiff(16, ramp(32767, "<i2", low=-32768).tobytes(), sample_format=2),
    "floats": encoded(grey("f4", 1), "TIFF"),
    "floats of a PFM": b"Pf\n64 64\n-1.0\n" + ramp(1, "<f4").tobytes(),
}


@pytest.mark.parametrize("kind", RAMPS)
def test_a_ramp_from_black_to_white_is_one_whatever_its_pixels_are(kind: str) -> None:
    pixels, _ = decode_image(RAMPS[kind], 64, "crop")
    # Half a step of 255 for rounding, and what lossy kinds and 12 bits lose.
    expected = torch.linspace(0, 255, 64).expand(3, 64, 64)
    assert (pixels.float() - expected).abs().mean() < 1.5


@pytest.mark.parametrize("kind", UNKNOWN_RANGE)
def test_pixels_of_unknown_range_are_refused_with_the_mend(kind: str) -> None:
    with pytest.raises(ValueError, match=r"of unknown range, without TIFF's tags .*; save it with 8 or 16 bits$"):
        decode_image(UNKNOWN_RANGE[kind], 64, "crop")


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_an_image_of_one_row_or_column_is_one(format: str, size: tuple[int, int]) -> None:
    pixels, _ = decode_image(encoded(Image.new("RGB", size, (250, 250, 250)), format), 16, "stretch")
    assert pixels.min() > 245


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_damaged_metadata_is_no_damage_to_the_pixels(format: str, exif: bytes) -> None:
    pixels, _ = decode_image(encoded(halves(64, 64), format, exif=exif), 48, "crop")
    assert colour_at(pixels.numpy(), 8, 24) == "red"


def test_postscript_is_not_run() -> None:
    with pytest.raises(ValueError, match="EPS is a program that draws, and is not run; save it as PNG"):
        decode_image(encoded(halves(8, 8), "EPS"), 8, "crop")


def of_any_kind() -> dict[str, bytes]:
    kinds = {f"{kind}.img": data for kind, data in {**RAMPS, **UNKNOWN_RANGE}.items()}
    kinds |= {f"{format}.img": encoded(halves(300, 200), format) for format in ("JPEG", "PNG", "GIF", "WEBP", "BMP")}
    # A header that says 20,000 by 10,000 pixels, which nobody has to decode to see it.
    png, gif, jpeg = kinds["PNG.img"], kinds["GIF.img"], kinds["JPEG.img"]
    size, head = struct.pack(">II", 20_000, 10_000), jpeg.index(b"\xff\xc0") + 5
    ihdr = png[12:16] + size + png[24:29]
    kinds["bomb.png"] = png[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + png[33:]
    kinds["bomb.gif"] = gif[:6] + struct.pack("<HH", 20_000, 10_000) + gif[10:]
    kinds["bomb.jpg"] = jpeg[:head] + struct.pack(">HH", 10_000, 20_000) + jpeg[head + 4 :]
    kinds["eps.img"] = encoded(halves(8, 8), "EPS")
    kinds["no width"] = kinds["GIF.img"][:6] + bytes(2) + kinds["GIF.img"][8:]
    return kinds


def refuses(data: bytes) -> bool:
    try:
        decode_image(data, 16, "crop")
    except ValueError:
        return True
    return False


def found(folder: Path, files: dict[str, bytes], check: ImageCheck) -> dict[str, str]:
    """Why each file is a bad row, of those that are."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "a.csv").write_text("image\n" + "".join(f'"{name}"\n' for name in files))
    index = index_csv(folder / "a.csv", folder / "cache", CsvOptions(types={"image": "text"}))
    faults = check_images(index, "image", None, check).faults.to_pylist()
    return {fault["value"]: fault["reason"] for fault in faults}


@pytest.mark.parametrize("check", ["whole", "decoded"])
def test_the_check_finds_every_kind_that_decoding_refuses_and_no_other(check: ImageCheck, tmp_path: Path) -> None:
    files = of_any_kind()
    reasons = found(tmp_path / "images", files, check)
    assert reasons.keys() == {name for name, data in files.items() if refuses(data)}
    assert all("200000000 pixels" in reasons[name] for name in files if name.startswith("bomb"))


def test_the_check_finds_every_file_cut_off_that_decoding_refuses(tmp_path: Path) -> None:
    rng = random.Random(0)
    whole = {name: data for name, data in of_any_kind().items() if not name.startswith("bomb")}
    cut = {f"{n}-{name}": data[: rng.randrange(len(data))] for n in range(3) for name, data in whole.items()}
    missed = {name for name, data in cut.items() if refuses(data)} - found(tmp_path / "images", cut, "whole").keys()
    assert missed == set()


def test_decoding_each_finds_every_damage_that_decoding_refuses_and_only_reasons_are_raised(tmp_path: Path) -> None:
    rng, damaged = random.Random(1), {}
    whole = {name: data for name, data in of_any_kind().items() if not name.startswith("bomb")}
    for n in range(3):
        for name, data in whole.items():
            changed = bytearray(data)
            for _ in range(3 * n + 1):
                changed[rng.randrange(min(len(data), rng.choice([64, 400, len(data)])))] = rng.randrange(256)
            damaged[f"{n}-{name}"] = bytes(changed)
    refused = {name for name, data in damaged.items() if refuses(data)}
    assert len(refused) > 20
    assert refused - found(tmp_path / "images", damaged, "decoded").keys() == set()
