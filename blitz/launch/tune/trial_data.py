"""The data of a sweep's trials: read once for all that have the same."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from blitz.data.plan import Datasets, Plan
from blitz.errors import require
from blitz.recipe import Recipe
from blitz.settings import with_settings

_LEARNING = {spec.name for spec in fields(Recipe)} - {"seed"} | {"model"}
"""Settings, or groups of them, that say how is learned and not from what."""


class TrialData:
    """Recipes and data sets of trials, kept for the next one that differs only in how it learns."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._settings: dict[str, Any] = {}
        self._read(self._settings)
        plan = self.plan
        require(plan.eval_rows > 0, f"recipe {recipe.name} has no rows to evaluate on, which decide")

    def _read(self, settings: dict[str, Any]) -> None:
        self._settings, self.fitted = settings, with_settings(self._recipe, settings).fitted()
        self.datasets: Datasets = {"train": self.fitted.dataset("train"), "val": self.fitted.dataset("val")}

    @property
    def plan(self) -> Plan:
        """The plan of the newest data with what all trials share."""
        return self.fitted.plan(len(self.datasets["train"]), len(self.datasets["val"]))

    def of(self, settings: Mapping[str, Any]) -> tuple[Recipe, Datasets]:
        """The recipe of a trial with such settings, fitted, and its data sets.

        Raises:
            UserError: if the settings do not go together.
        """
        of_data = {name: value for name, value in settings.items() if not says_how(name)}
        if of_data != self._settings:
            self._read(of_data)
        return with_settings(self.fitted, settings), self.datasets


def says_how(name: str) -> bool:
    """Whether a setting says how is learned and not from what."""
    return name.partition(".")[0] in _LEARNING
