"""The data of a sweep's trials, read once for all that share it."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blitz.data.arrays import LabeledDataset
from blitz.data.plan import Datasets, Plan
from blitz.errors import require
from blitz.outputs.metrics import Classification
from blitz.recipe import Recipe
from blitz.recipes import code_of
from blitz.settings import with_settings

_TRAINING_SETTINGS = {spec.name for spec in fields(Recipe)} - {"seed"} | {"model"}
"""Settings, or groups of settings, of the training rather than of the data."""

_ROWS_AT_ONCE = 4096


class TrialData:
    """The fitted recipe and data sets of a trial, kept for the next one that differs only in training settings."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        # Looked up here, because a user's module is not there in a Ray worker that this is sent to.
        self.code = code_of(recipe)
        self._settings: dict[str, Any] = {}
        self._read(self._settings)
        plan = self.plan
        require(plan.eval_rows > 0, f"recipe {recipe.name} has no rows to evaluate on, which the sweep's metric needs")

    def _read(self, settings: dict[str, Any]) -> None:
        self._settings, self.fitted = settings, with_settings(self._recipe, settings).fitted()
        self.datasets: Datasets = {"train": self.fitted.dataset("train"), "val": self.fitted.dataset("val")}

    @property
    def plan(self) -> Plan:
        """The plan of the newest data with the settings that all trials share."""
        return self.fitted.plan(len(self.datasets["train"]), len(self.datasets["val"]))

    def class_counts(self) -> dict[str, Tensor] | None:
        """How many of the rows to evaluate on are of each class, as the sums of `Classification`.

        None where there are no classes, or where a row's class cannot be read without the rest of it.
        """
        metrics, rows = self.fitted.metrics(), self.datasets["val"]
        if not isinstance(metrics, Classification) or not isinstance(rows, LabeledDataset):
            return None
        counts = torch.zeros(len(metrics.classes), dtype=torch.int64)
        for start in range(0, self.plan.eval_rows, _ROWS_AT_ONCE):
            some = np.arange(start, min(start + _ROWS_AT_ONCE, self.plan.eval_rows))
            try:
                labels = rows.labels(some)
            except KeyError:
                return None
            counts += torch.bincount(torch.from_numpy(labels), minlength=len(counts))
        return {"right": torch.zeros_like(counts), "rows_of": counts}

    def of(self, settings: Mapping[str, Any]) -> tuple[Recipe, Datasets]:
        """The fitted recipe of a trial with these settings, and its data sets.

        Raises:
            UserError: if the settings contradict each other.
        """
        of_data = {name: value for name, value in settings.items() if not is_training_setting(name)}
        if of_data != self._settings:
            self._read(of_data)
        return with_settings(self.fitted, settings), self.datasets


def is_training_setting(name: str) -> bool:
    """Whether a setting changes the training only, not the data."""
    return name.partition(".")[0] in _TRAINING_SETTINGS
