"""The errors of a run on its validation rows, and the prediction intervals that follow from them."""

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from blitz.data.arrays import FAULT, MapStyleDataset
from blitz.data.order import Rows, shuffled_rows
from blitz.errors import StorageError, require
from blitz.outputs.conformal import HeldOutErrors
from blitz.outputs.metrics import Regression
from blitz.outputs.predictions import Columns
from blitz.randomness import Use, key_for
from blitz.recipe import Batch, Recipe
from blitz.recipes import recipe_to_json
from blitz.run_files.directory import RunDirectory
from blitz.training.batches import laid_out, on_device
from blitz.training.model import Forward, checkpoint_model, forward

MOST_ROWS = 2000
"""Validation rows whose errors are kept: the share of rows within an interval is then exact to about 1.3 %."""
_ROWS_A_FORWARD = 500


@runtime_checkable
class CrossValidated(Protocol):
    """A recipe that may train a model for each fold."""

    def outputs_by_fold(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """The outputs of each model, (folds, batch, outputs); None if there is one model."""


def rows_at_random(count: int, most: int, *, seed: int) -> Rows:
    """At most so many of `count` rows, ascending: a function of the seed."""
    keys = np.full(min(count, most), key_for(Use.EXPLAINED, seed), np.uint64)
    return np.sort(shuffled_rows(np.arange(min(count, most)), num_rows=count, keys=keys))


def fetched(dataset: MapStyleDataset, rows: Rows) -> tuple[Rows, dict[str, Tensor]]:
    """Those of `rows` that are valid, and their columns on the CPU."""
    columns = dict(dataset.__getitems__(rows))
    faults = columns.pop(FAULT, None)
    valid = np.arange(len(rows)) if faults is None else np.flatnonzero(faults == "")
    return rows[valid], dict(on_device({name: one[valid] for name, one in columns.items()}, torch.device("cpu")))


def held_out_errors(recipe: Recipe, run: RunDirectory, step: int) -> HeldOutErrors:
    """The errors of a checkpoint on at most 2,000 validation rows, from the run if they are stored there.

    Raises:
        UserError: if the recipe does not predict numbers, or has no validation rows.
    """
    require(
        isinstance(recipe.metrics(), Regression),
        f"--intervals: recipe {recipe.name} does not predict numbers here; probabilities say how sure a class is",
    )
    path = f"explanations/errors-{step}.json"
    # Settings such as --augmentation.views may have changed.
    of = hashlib.sha256(json.dumps(recipe_to_json(recipe), sort_keys=True).encode()).hexdigest()
    if (stored := run.read_json(path)) is None or stored.get("recipe") != of:
        stored = {**_computed(recipe, run, step), "recipe": of}
        # A run that cannot be written can still be predicted with.
        with contextlib.suppress(StorageError):
            run.write_json(path, stored)
    folds = stored["folds"]
    return HeldOutErrors(
        torch.tensor(stored["errors"], dtype=torch.float64), None if folds is None else torch.tensor(folds)
    )


@torch.no_grad()
def _computed(recipe: Recipe, run: RunDirectory, step: int) -> dict[str, Any]:
    dataset = recipe.dataset("val")
    require(len(dataset) > 0, "--intervals: the run has no validation rows, whose errors they follow from")
    model, rows = checkpoint_model(recipe, run, step), rows_at_random(len(dataset), MOST_ROWS, seed=recipe.seed)
    errors: list[list[float]] = []
    folds: list[int] = []
    for start in range(0, len(rows), _ROWS_A_FORWARD):
        _, columns = fetched(dataset, rows[start : start + _ROWS_A_FORWARD])
        batch = laid_out(recipe, recipe.preprocess(columns))
        outputs = forward(Forward(recipe, model), batch, torch.device("cpu")).double()
        outputs = outputs.reshape(len(outputs), -1)
        errors += (outputs - batch["targets"].double().reshape(outputs.shape)).abs().tolist()
        folds += columns["fold"].tolist() if "fold" in columns else []
    return {"errors": errors, "folds": folds or None}


@dataclass(frozen=True)
class Intervals:
    """Prediction intervals that a share `level` of rows like the validation rows lie in."""

    level: float
    held_out: HeldOutErrors

    @property
    def fingerprint(self) -> str:
        """A hash of what they depend on."""
        errors = self.held_out.errors.numpy().tobytes()
        folds = b"" if self.held_out.folds is None else self.held_out.folds.numpy().tobytes()
        return hashlib.sha256(repr(self.level).encode() + errors + folds).hexdigest()

    def columns(self, recipe: Recipe, model: nn.Module, outputs: Tensor, batch: Batch) -> Columns:
        """`lower` and `upper` of each prediction, or of several numbers `lower_<name>` and `upper_<name>`."""
        found: Columns = {}
        for end, values in zip(("lower", "upper"), self.ends(recipe, model, outputs, batch), strict=True):
            # Scales of the target, and its logarithm, are undone for a bound as for a prediction.
            predicted = recipe.predictions(values.reshape(outputs.shape), batch)
            found |= {end + name.removeprefix("prediction"): numbers for name, numbers in predicted.items()}
        return found

    def ends(self, recipe: Recipe, model: nn.Module, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The ends of the interval of each output, as they are learned: float64 (batch, columns)."""
        every = outputs.reshape(len(outputs), -1)
        if self.held_out.folds is not None and isinstance(recipe, CrossValidated):
            by_fold = recipe.outputs_by_fold(model, batch)
            assert by_fold is not None
            every = by_fold.reshape(len(by_fold), len(outputs), -1)
        return self.held_out.bounds(every, self.level)
