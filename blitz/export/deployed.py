"""The module that is exported: a recipe's model with its preprocessing of fetched rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blitz.data.arrays import FAULT, MapStyleDataset
from blitz.errors import UserError
from blitz.recipe import Batch, Recipe
from blitz.training.batches import on_device

_TARGETS = "targets"


class Deployed(nn.Module):
    """Maps the columns of a batch, one argument each, to the outputs of `Recipe.deployed`."""

    def __init__(self, recipe: Recipe, model: nn.Module, columns: Sequence[str]) -> None:
        super().__init__()
        self.recipe, self.model, self.columns = recipe, model, tuple(columns)

    def forward(self, *columns: Tensor) -> dict[str, Tensor]:
        """Named tensors of shape (batch, …)."""
        return self.recipe.deployed(self.model, dict(zip(self.columns, columns, strict=True)))


def deploy(recipe: Recipe, model: nn.Module, rows: Batch) -> tuple[Deployed, dict[str, Tensor]]:
    """The module to export, in evaluation mode, and those columns of `rows` that it takes."""
    model.eval()
    # Without the targets, and then without every column that the outputs do not depend on.
    taken = {name: column for name, column in rows.items() if name != _TARGETS}
    answer = _answer(recipe, model, taken)
    for name in list(taken):
        fewer = {other: column for other, column in taken.items() if other != name}
        try:
            same = bool(fewer) and _same(_answer(recipe, model, fewer), answer)
        except KeyError:
            continue
        taken = fewer if same else taken
    return Deployed(recipe, model, list(taken)).eval(), taken


@torch.no_grad()
def _answer(recipe: Recipe, model: nn.Module, columns: Batch) -> dict[str, Tensor]:
    answer: Any = recipe.deployed(model, {name: column[:2] for name, column in columns.items()})
    if not isinstance(answer, dict) or not all(isinstance(value, Tensor) for value in answer.values()):
        raise UserError(f"recipe {recipe.name}: deployed() must give tensors by name; give it a method of its own")
    return answer


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def real_rows(recipe: Recipe, most: int) -> tuple[dict[str, Tensor], int]:
    """Columns of the first rows, of `val` or else of `train`, and their number; at least two, if need be the same.

    Raises:
        UserError: if there are none.
    """
    for split in ("val", "train"):
        dataset: MapStyleDataset = recipe.dataset(split)
        if not len(dataset):
            continue
        columns = dict(dataset.__getitems__(np.arange(min(most, len(dataset)))))
        faults = columns.pop(FAULT, None)
        good = np.flatnonzero(faults == "") if faults is not None else np.arange(len(next(iter(columns.values()))))
        if len(good):
            # An exporter would take a batch size of 1 for a constant.
            good = np.resize(good, max(2, len(good)))
            return dict(on_device({name: column[good] for name, column in columns.items()}, torch.device("cpu"))), len(
                good
            )
    raise UserError(f"recipe {recipe.name} has no row to compare an exported model on")


def signature(deployed: Deployed, columns: Batch, outputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a user of the artifact must know: inputs in their order, outputs, and what the recipe adds."""
    return {
        "recipe": deployed.recipe.name,
        "inputs": {name: _described(columns[name]) for name in deployed.columns},
        "outputs": {name: _described(value) for name, value in outputs.items()},
        **deployed.recipe.signature(),
    }


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": ["batch", *tensor.shape[1:]]}
