"""Images of every mode and format, some damaged: each row is predicted, or named as bad where Pillow refuses it."""

import csv
import io
import math
import random
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from bench.fuzz.commands import Commands, expect
from bench.fuzz.stock import HERE, SIDE, Stock, picture, read

_MODES = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "jpg": ["L", "RGB", "CMYK"],
    "tif": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB"],
    "gif": ["L", "P", "RGB"],
    "bmp": ["1", "L", "P", "RGB"],
    "webp": ["RGB", "RGBA"],
    "ppm": ["1", "L", "RGB"],
}
_EXACT = {"L", "LA", "RGB", "RGBA"}
_DEEP = {"I", "F", "I;16"}
DAMAGES = ("cut", "empty", "bytes", "text", "svg", "missing", "folder", "bomb", "zeros", "hidden")
_NAMES = ["a", "é", "two words", "a#b", "a?b", "a%20b", "a;b", "it's", "日本", "-x", ".hidden"]


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The same picture in another mode; 16 and 32 bits use the whole range of 16, floats that of 0 to 1."""
    grey = np.asarray(image.convert("L"))
    match mode:
        case "I;16":
            return Image.fromarray(grey.astype(np.uint16) * 257)
        case "I":
            return Image.fromarray(grey.astype(np.int32) * 257)
        case "F":
            return Image.fromarray(grey.astype(np.float32) / 255)
        case "LAB":
            from PIL import ImageCms

            profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
            return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB")) or image
        case "P":
            return image.quantize(64)
    return image.convert(mode)


def _damaged(rng: random.Random, data: bytes, how: str) -> bytes:
    match how:
        case "cut":
            return data[: rng.randrange(1, len(data))]
        case "empty":
            return b""
        case "bytes":
            changed = bytearray(data)
            for _ in range(rng.choice([1, 10])):
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return bytes(changed)
        case "text":
            return b"<html>404 not found</html>"
        case "svg":
            return b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
        case "zeros":
            return bytes(len(data))
        case "bomb":
            file = io.BytesIO()
            Image.new("1", (30_000, 30_000)).save(file, "PNG")
            return file.getvalue()
    return data


def opens(file: Path) -> bool:
    """Whether Pillow decodes all of a file, bombs refused."""
    try:
        with warnings.catch_warnings(), Image.open(file) as image:
            warnings.simplefilter("ignore")
            image.load()
            image.convert("RGB")
    except Exception:
        return False
    return True


def case(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    """Some images through `prepare` and `predict`."""
    images = folder / "pictures"
    images.mkdir()
    rows: list[tuple[str, str, str, float]] = []
    for number in range(rng.choice([3, 8])):
        ending = rng.choice([*_MODES])
        mode, how = rng.choice(_MODES[ending]), rng.choice(DAMAGES) if rng.random() < 0.3 else ""
        light = rng.random()
        file = images / f"{number}{rng.choice(_NAMES) if rng.random() < 0.3 else ''}.{ending}"
        if how == "hidden":
            file = images / f"._{number}.{ending}"
        stream = io.BytesIO()
        kinds = {"jpg": "JPEG", "tif": "TIFF"}
        more = {"lossless": True} if ending == "webp" else {}
        in_mode(picture(light), mode).save(stream, kinds.get(ending, ending.upper()), **more)
        if how == "folder":
            file.mkdir()
        elif how != "missing":
            file.write_bytes(_damaged(rng, stream.getvalue(), how))
        picture(light).save(images / f"right{number}.png")
        rows.append((file.name, f"{ending} {mode}", how, light))
    for name, shade in (("black", 0), ("white", 255)):
        Image.new("RGB", (SIDE, SIDE), (shade,) * 3).save(images / f"{name}.png")
    names = [name for name, _, _, _ in rows]
    for table, listed in (
        ("in.csv", names),
        ("right.csv", [*(f"right{i}.png" for i in range(len(rows))), "black.png", "white.png"]),
    ):
        with (folder / table).open("w", newline="", encoding="utf-8") as text:
            csv.writer(text).writerows([["file", "n"], *([f"pictures/{name}", "1"] for name in listed)])
    bad = [row for row in rows if not opens(images / row[0])]
    seen = f"{rows}"
    prepared = commands.run(folder, "prepare", "in.csv", "--image-column", "file", "--out", "prepared")
    named = sum(
        f"pictures/{row[0]}" in prepared.printed
        for row in bad
        if row[2] in ("empty", "text", "svg", "missing", "zeros", "bomb")
    )
    wanted = sum(row[2] in ("empty", "text", "svg", "missing", "zeros", "bomb") for row in bad)
    expect(named >= wanted, "check misses a bad image", f"{seen}: {prepared.out[-600:]} {prepared}")
    sound = [row for row in rows if not row[2]]
    invented = [row for row in sound if f"pictures/{row[0]}'" in prepared.printed]
    expect(not invented, "sound image called bad", f"{invented}: {prepared}")
    for which in ("in", "right"):
        done = commands.run(folder, "predict", str(stock.image_run), f"{which}.csv", f"{which}.out.csv", *HERE)
        if done.code == 2:
            expect(len(bad) == len(rows) and which == "in", "sound images refused", f"{seen}: {done}")
            return Counter(images=len(rows), refused=1)
    found, right = read(folder / "in.out.csv"), read(folder / "right.out.csv")
    expect([row["file"] for row in found] == [f"pictures/{name}" for name in names], "rows lost", seen)
    black, white = (float(row["probability_a"]) for row in right[-2:])
    for (name, kind, how, light), row, reference in zip(rows, found, right, strict=False):
        described = f"{name} ({kind}, {how or 'sound'}, light {light:.2f}): {row}"
        expect(bool(row["error"]) != bool(row["prediction"]), "neither predicted nor bad", described)
        if (name, kind, how, light) in bad:
            expect(bool(row["error"]), "undecodable image predicted", described)
        if how:
            continue
        expect(not row["error"], "sound image called bad", described)
        probability, exact = float(row["probability_a"]), float(reference["probability_a"])
        mode = kind.split()[1]
        if mode in _EXACT and not kind.startswith(("jpg", "gif")):
            same = math.isclose(probability, exact, abs_tol=5e-3)
            expect(same, "image misread", f"{described}, not {exact}")
        elif mode in _DEEP and not any(math.isclose(exact, flat, abs_tol=5e-3) for flat in (black, white)):
            # The same picture, or at least one: neither all black nor all white.
            is_flat = any(math.isclose(probability, flat, abs_tol=1e-6) for flat in (black, white))
            expect(
                not is_flat, "deep image becomes flat", f"{described}; black is {black}, white {white}, right {exact}"
            )
    return Counter(images=len(rows), bad=len(bad))
