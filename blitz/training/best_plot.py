"""The picture of a checkpoint, for recipes that draw one."""

import io

import torch

from blitz.data.plan import Split
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.model import checkpoint_model


def draw(recipe: Recipe, run: RunDirectory, *, step: int, split: Split) -> str | None:
    """Write `pictures/<split>-<step>.png` and return that path; None if the recipe draws nothing, at no cost."""
    if type(recipe).picture is Recipe.picture:
        return None
    with torch.no_grad():
        figure = recipe.picture(checkpoint_model(recipe, run, step), split)
    if figure is None:
        return None
    png = io.BytesIO()
    # Without Matplotlib's version, so that the same checkpoint gives the same bytes.
    figure.savefig(png, format="png", dpi=120, metadata={"Software": None})
    path = f"pictures/{split}-{step}.png"
    run.write(path, png.getvalue())
    return path
