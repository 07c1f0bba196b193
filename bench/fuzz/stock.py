"""The inputs of cases: a trained run on a table and one on images, with their predictions for known rows."""

import csv
import hashlib
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.fuzz.commands import Commands

HERE = ("--scale.num-workers", "0")
"""Flags to run in this process, without Ray."""

NUMBERS = (0.0, 1.5, -2.25, 30.5, 12.75, 7.0, None)
"""Values of column x; None is a missing one."""
CATEGORIES = ("red", "green", "blue", "mauve", "")
"""Values of column c, of which training saw the first three."""
SIDE = 32

Known = dict[tuple[float | None, str], tuple[str, float]]


@dataclass(frozen=True)
class Stock:
    """Trained once, only read by cases."""

    folder: Path
    table_run: Path
    image_run: Path
    known: Known
    """Prediction and probability for each x and c."""

    @property
    def table_csv(self) -> Path:
        """The CSV that the table's run was trained on."""
        return self.folder / "table.csv"


def make_stock(folder: Path, commands: Commands, *, images: bool = True) -> Stock:
    """Train both runs, or that on a table alone; imports what the commands import on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    rows = [(rng.choice(NUMBERS), rng.choice(CATEGORIES[:3])) for _ in range(160)]
    write(
        folder / "table.csv",
        ["x", "c", "t"],
        ([_cell(x), c, "ab"[(3.0 if x is None else x) > 5 or c == "red"]] for x, c in rows),
    )
    write(folder / "known.csv", ["id", "x", "c"], (["r", _cell(x), c] for x in NUMBERS for c in CATEGORIES))
    train = ("--data.val-fraction", "0.25", "--data.cache", "cache", *HERE)
    commands.import_what_it_does(
        folder, "train", "table_csv", "--data.train-csv", "table.csv", "--data.target", "t", *train,
        "--epochs", "40", "--global-batch-size", "16", "--run", "table", "--model.hidden", "8", "--optim.lr", "0.03",
        "--optim.schedule", "constant",
    )  # fmt: skip
    if images:
        _train_on_images(folder, commands, train)
    commands.import_what_it_does(folder, "export", "table")
    commands.import_what_it_does(folder, "prepare", "table.csv")
    commands.run(folder, "predict", "table", "known.csv", "known.out.csv", *HERE)
    known = {
        (float(row["x"]) if row["x"] else None, row["c"]): (row["prediction"], float(row["probability_a"]))
        for row in read(folder / "known.out.csv")
    }
    return Stock(folder, folder / "runs" / "table", folder / "runs" / "images", known)


def _train_on_images(folder: Path, commands: Commands, train: tuple[str, ...]) -> None:
    images = folder / "images"
    images.mkdir()
    for number in range(24):
        picture(number / 24).save(images / f"{number}.png")
    lines = ([f"images/{number}.png", "ab"[number > 11]] for number in range(24))
    write(folder / "images.csv", ["file", "t"], lines)
    commands.import_what_it_does(
        folder, "train", "image_csv", "--data.train-csv", "images.csv", "--data.label-column", "t", *train,
        "--model.name", "squeezenet1_1", "--data.size", str(SIDE), "--epochs", "20", "--global-batch-size", "6",
        "--augmentation.min-area", "1", "--run", "images", "--optim.lr", "0.0003", "--data.loader-workers", "0",
    )  # fmt: skip


def _cell(x: float | None) -> str:
    return "" if x is None else repr(x)


def picture(light: float) -> Image.Image:
    """A grey ramp, brighter to the right, whose mean goes with `light` in [0, 1]."""
    image = Image.new("L", (SIDE, SIDE))
    image.putdata([min(255, int(200 * light + 55 * (i % SIDE) / SIDE)) for i in range(SIDE * SIDE)])
    return image.convert("RGB")


def write(file: Path, names: list[str], rows: Iterable[list[str]]) -> None:
    """A plain CSV."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(rows)


def read(file: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a CSV in UTF-8."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


def digests(folder: Path, *, skip: tuple[str, ...] = ()) -> dict[str, str]:
    """A digest of each file below a folder, by its relative path; links are named, not followed."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            relative = str(file.relative_to(folder))
            if not relative.endswith(skip) or not skip:
                link = file.is_symlink()
                found[relative] = (
                    f"-> {os.readlink(file)}" if link else hashlib.blake2b(file.read_bytes()).hexdigest()
                    if file.is_file() else "special"
                )  # fmt: skip
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Files that are not the same in both, or in one only."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
