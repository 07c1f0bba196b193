"""Pictures that tests draw, and CSVs that name them."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


def picture(file: Path, colour: str, *, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    """A noisy picture, width by height, of one colour."""
    noise = np.random.default_rng(seed).integers(-25, 25, size=(size[1], size[0], 3))
    Image.fromarray(np.clip(noise + COLOURS[colour], 0, 255).astype(np.uint8)).save(file)
    return file


def coloured(folder: Path, rows: int, name: str = "train.csv", *, seed: int = 0) -> Path:
    """A CSV of pictures and their colours, in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,colour"]
    for row in range(rows):
        colour = [*COLOURS][row % len(COLOURS)]
        file = picture(folder / f"{seed}-{row:03}.{('jpg', 'png')[row % 2]}", colour, seed=seed * 1000 + row)
        lines.append(f"{file.name},{colour}")
    (folder / name).write_text("\n".join([*lines, ""]))
    return folder / name


def dots(folder: Path, rows: int) -> Path:
    """A CSV of black pictures of several sizes with two white dots, and where those are."""
    folder.mkdir(exist_ok=True)
    random, lines = np.random.default_rng(5), ["file,left_x,left_y,right_x,right_y"]
    for row in range(rows):
        width, height = (int(side) for side in random.integers(60, 120, size=2))
        pixels = np.zeros((height, width), np.uint8)
        # Within the middle, so that no crop of the square leaves them out.
        points = [(int(width * x), int(height * y)) for x, y in ((0.42, 0.45), (0.58, 0.55))]
        for x, y in points:
            pixels[y - 2 : y + 2, x - 2 : x + 2] = 255
        Image.fromarray(pixels).save(folder / f"{row}.png")
        lines.append(f"{row}.png," + ",".join(f"{x},{y}" for x, y in points))
    (folder / "dots.csv").write_text("\n".join([*lines, ""]))
    return folder / "dots.csv"
