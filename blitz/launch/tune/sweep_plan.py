"""The plan of a sweep, and opening its directory."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from blitz.errors import UserError, require
from blitz.launch.tune.search import search_of
from blitz.launch.tune.space import SchedulerName, SearchName, Space
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json
from blitz.run_files.code import changed_code
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import require_distinct, require_lasting
from blitz.run_files.sweep_directory import Goal, SweepDirectory
from blitz.settings import setting_value, with_settings
from blitz.training.initial_weights import resolve_initial_weights
from blitz.training.packed import Rungs

_CHECKED_DRAWS = 100


@dataclass(frozen=True)
class SweepPlan:
    """Everything that defines a sweep."""

    space_name: str
    space: Space
    recipe: Recipe
    """The settings that all trials share; not fitted."""
    search: SearchName
    scheduler: SchedulerName
    seed: int
    num_trials: int
    initial: str | None = None
    """The SHA-256 of the weights that trials are initialised from; None if there are none, or before they are read."""

    def to_json(self) -> dict[str, Any]:
        """The content of sweep.json without the metric, which may depend on the data."""
        return {
            "space": self.space_name,
            "recipe": recipe_to_json(self.recipe),
            "parameters": self.space.text(),
            "search": self.search,
            "scheduler": self.scheduler,
            "seed": self.seed,
            "num_trials": self.num_trials,
            **({} if self.initial is None else {"initial": self.initial}),
        }

    def with_initial_weights(self, fitted: Recipe, directory: RunDirectory) -> "SweepPlan":
        """The plan with the hash of the weights that `fitted` begins with.

        Raises:
            UserError: if they cannot be read, and a trial may need them.
        """
        if not fitted.uses_other_weights:
            return self
        try:
            source = resolve_initial_weights(fitted)[0].begins_with
        except UserError:
            stored = directory.read_json("sweep.json")
            if stored is None or any(not trial.ended for trial in SweepDirectory(directory).trials()):
                raise
            return replace(self, initial=stored.get("initial"))
        return replace(self, initial=source.sha256 if source else None)

    def default_name(self) -> str:
        """`<space>-<hash>`; the hash leaves out the number of trials, so that more of them extend the same sweep."""
        identity = json.dumps({**replace(self, initial=None).to_json(), "num_trials": None}, sort_keys=True)
        return f"{self.space_name}-{hashlib.sha256(identity.encode()).hexdigest()[:6]}"

    def check(self) -> None:
        """Build the settings of the first trials.

        Raises:
            UserError: if they contradict each other, or if a flag sets what the space varies.
        """
        default = with_settings(type(self.recipe)(), self.space.overrides)
        for name in self.space.names:
            flag = f"--{name.replace('_', '-')}"
            same = setting_value(self.recipe, name) == setting_value(default, name)
            require(same, f"{flag}: the space {self.space_name} varies it; leave it out, or edit the space")
        # Optuna's draws depend on results; random draws find contradicting settings as well.
        search = search_of("grid" if self.search == "grid" else "random", self.space, seed=self.seed, mode="min")
        for number in range(min(self.num_trials, _CHECKED_DRAWS)):
            if (draw := search.draw(number)) is None:
                break
            try:
                with_settings(self.recipe, self.space.settings(draw))
            except UserError as error:
                raise UserError(
                    f"trial {number} of the space {self.space_name} would have {self.space.settings(draw)}: {error}; "
                    "let settings that depend on each other be choices of dictionaries"
                ) from error

    def rungs(self, goal: Goal, *, evaluate_every_steps: int) -> Rungs:
        """The rungs of successive halving, in units of which `evaluate_every_steps` make an evaluation."""
        return Rungs(
            goal.metric,
            higher_is_better=goal.higher_is_better,
            grace_steps=self.space.grace_evaluations * evaluate_every_steps,
            reduction_factor=self.space.reduction,
        )


def open_sweep(
    plan: SweepPlan, goal: Goal, directory: RunDirectory, *, resume_changed_code: bool = False
) -> SweepDirectory:
    """The directory of a sweep, new or resumed, once it is known to be writable.

    Raises:
        UserError: if it cannot be written, if it holds another sweep or a run, or if the code of its recipe has changed
            since, unless `resume_changed_code`.
    """
    require_lasting(directory)
    require_distinct(directory)
    stored = directory.read_json("sweep.json")
    require(stored is not None or not directory.exists("recipe.json"), f"{directory} is a run; name another with --run")
    if stored is not None:
        now = {**plan.to_json(), "metric": goal.metric, "mode": goal.mode}
        changed = [name for name in now if name != "num_trials" and _as_stored(now[name]) != stored.get(name)]
        # Sweeps of older versions have no hash of their initial weights.
        changed = [name for name in changed if name != "initial" or name in stored]
        named = [_explained(name, now[name], stored.get(name)) for name in changed]
        require(
            not changed,
            f"{directory} is a sweep of another {' and '.join(named)}; repeat its settings to resume it, or name "
            "another with --run",
        )
    if stored is not None and not resume_changed_code:
        change = changed_code(directory, stored, plan.recipe.sources())
        require(
            not change,
            f"{directory}: the code of its recipe has changed since it was made: {change}; give --resume-changed-code "
            "to continue it with the code as it is now, or another name with --run",
        )
    directory.probe()
    return SweepDirectory(replace(directory, patient=True), plan.space.names)


def _explained(name: str, now: Any, stored: Any) -> str:
    """What has changed in a part of sweep.json; of a recipe its settings."""
    if name == "initial":
        return "source of its initial weights, which are others than at its start"
    if name != "recipe" or not isinstance(stored, Mapping) or now["recipe"] != stored.get("recipe"):
        return name
    settings = _as_stored(now)
    return f"recipe ({', '.join(key for key in {**settings, **stored} if settings.get(key) != stored.get(key))})"


def _as_stored(value: Any) -> Any:
    """`value` after a round trip through JSON."""
    if isinstance(value, Mapping):
        return {name: _as_stored(inner) for name, inner in value.items()}
    return [_as_stored(inner) for inner in value] if isinstance(value, tuple | list) else value
