"""The picture of a checkpoint, for recipes that draw one."""

import io

import torch

from blitz.data.plan import Split
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from blitz.training.model import build_model
from blitz.training.world import World


def draw(recipe: Recipe, run: RunDirectory, *, step: int, split: Split) -> str | None:
    """Write `pictures/<split>-<step>.png` and return that path; None if the recipe draws nothing, at no cost."""
    if type(recipe).picture is Recipe.picture:
        return None
    model = build_model(recipe, World(rank=0, size=1, device=torch.device("cpu"))).eval()
    Checkpoint.load(run, step, weights_only=True).give_weights(model, run)
    with torch.no_grad():
        figure = recipe.picture(model, split)
    if figure is None:
        return None
    png = io.BytesIO()
    # Without Matplotlib's version, so that the same checkpoint gives the same bytes.
    figure.savefig(png, format="png", dpi=120, metadata={"Software": None})
    path = f"pictures/{split}-{step}.png"
    run.write(path, png.getvalue())
    return path
