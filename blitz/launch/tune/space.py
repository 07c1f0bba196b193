"""The search space of a sweep, as a file in `tune_spaces/` defines it: Ray Tune's distributions by setting name.

A choice may be a dictionary, which sets several settings of a group together. Use it for settings that depend on each
other: `"optim": tune.choice([{"name": "sgd"}, {"name": "momentum", "momentum": tune.uniform(0.5, 0.99)}])`.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import typeguard
from ray import tune
from ray.tune.search.sample import Categorical, Domain, Float, Function, Integer
from torch import Tensor

from blitz.errors import UserError, require
from blitz.outputs.best import deciding_metric
from blitz.recipe import Recipe
from blitz.recipes import find_recipe
from blitz.run_files.sweep_directory import Goal, Mode
from blitz.settings import setting_types, with_settings

SearchName = Literal["random", "grid", "optuna"]
SchedulerName = Literal["asha", "none"]
Draw = dict[str, Any]
"""A value for each dimension of a space; for a choice, the index of the option."""


@dataclass(frozen=True)
class Space:
    """A recipe, the settings that vary, and the metric that ranks trials."""

    recipe: str | type[Recipe]
    """Its class, or what names it on the command line."""
    parameters: Mapping[str, Any]
    """The settings that vary: a Ray Tune distribution by the setting's name on the command line."""
    metric: str | None = None
    """The metric that ranks trials, such as `val/loss`; by default the one that ranks the checkpoints of a run."""
    mode: Mode | None = None
    """Whether less (min) or more (max) of `metric` is better; required with `metric`."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings of all trials that differ from the recipe's defaults."""
    num_trials: int = 16
    search: SearchName = "random"
    scheduler: SchedulerName = "none"
    grace_evaluations: int = 1
    """For asha: no trial is stopped before this many evaluations."""
    reduction: int = 3
    """For asha: one in this many trials continues past a rung, and each rung is this many times as far as the last."""
    grid_points: int = 5
    """For a grid: how many values of each range."""

    def base(self) -> Recipe:
        """The recipe before anything is varied.

        Raises:
            UserError: if the recipe does not exist, or the space names settings or values that it does not have.
        """
        kind = find_recipe(self.recipe) if isinstance(self.recipe, str) else self.recipe
        types = setting_types(kind)
        for name, value in self.overrides.items():
            _check_value(types, name, value, where="its overrides")
        for name, what in self.parameters.items():
            _check(types, name, what)
        require(self.metric is None or self.mode is not None, f"the space's metric is {self.metric}; say its mode")
        return with_settings(kind(), self.overrides)

    def goal(self, recipe: Recipe, sums: Mapping[str, Tensor] | None = None) -> Goal:
        """The metric that ranks trials: `--best.metric`, or the space's, or else that of the checkpoints of a run.

        `recipe` is fitted; `sums` are the counts of its classes in `Classification.sums`, where they are known.
        """
        if recipe.best.metric is None and self.metric is not None and self.mode is not None:
            return Goal(self.metric, self.mode)
        deciding = deciding_metric(recipe.best, recipe.metrics(), sums)
        return Goal(f"val/{deciding.metric}", "max" if deciding.higher_is_better else "min")

    @property
    def dimensions(self) -> dict[str, Domain]:
        """The distributions to draw from, by the names that `settings` expects."""
        return {name: domain for key, what in self.parameters.items() for name, domain in _dimensions(key, what)}

    @property
    def names(self) -> list[str]:
        """Every setting that varies."""
        return list(dict.fromkeys(name for key, what in self.parameters.items() for name, _ in _leaves(key, what)))

    def settings(self, draw: Draw) -> dict[str, Any]:
        """The settings that a draw stands for, without those of options that were not chosen."""
        return {name: value for key, what in self.parameters.items() for name, value in _settled(key, key, what, draw)}

    def text(self) -> dict[str, str]:
        """The settings that vary, as text."""
        return {key: _text(what) for key, what in self.parameters.items()}


def _options(what: Any) -> list[Any] | None:
    """The options of a choice; None for anything else."""
    if isinstance(what, Mapping) and what.keys() == {"grid_search"}:
        return list(what["grid_search"])
    return list(what.categories) if isinstance(what, Categorical) else None


def _dimensions(key: str, what: Any) -> Iterator[tuple[str, Domain]]:
    options = _options(what)
    if options is not None:
        yield key, tune.choice(range(len(options)))
        for number, option in enumerate(options):
            for name, inner in option.items() if isinstance(option, Mapping) else ():
                yield from _dimensions(f"{key}[{number}].{name}", inner)
    elif isinstance(what, Domain):
        yield key, what


def _settled(name: str, dimension: str, what: Any, draw: Draw) -> Iterator[tuple[str, Any]]:
    options = _options(what)
    if options is None:
        yield name, draw[dimension] if isinstance(what, Domain) else what
        return
    number = draw[dimension]
    if isinstance(options[number], Mapping):
        for inner, value in options[number].items():
            yield from _settled(f"{name}.{inner}", f"{dimension}[{number}].{inner}", value, draw)
    else:
        yield name, options[number]


def _leaves(name: str, what: Any) -> Iterator[tuple[str, Any]]:
    """Every setting that a parameter may set, with its distribution or value; for a choice, those of all options."""
    for option in _options(what) or [what]:
        if isinstance(option, Mapping) and _options(option) is None:
            for inner, value in option.items():
                yield from _leaves(f"{name}.{inner}", value)
        elif option is not what and _options(option) is not None:
            yield from _leaves(name, option)
        else:
            yield name, option


def _check(types: Mapping[str, Any], key: str, what: Any) -> None:
    for name, value in _leaves(key, what):
        if not isinstance(value, Domain):
            _check_value(types, name, value, where="the space")
            continue
        hint = _type_of(types, name, where="the space")
        require(
            not isinstance(value, Function),
            f"the space varies {name} by sample_from, which draws by itself, so that the same command could not "
            "resume with the same draws; let settings that depend on each other be choices of dictionaries",
        )
        wanted = float if isinstance(value, Float) else int
        accepted = get_args(hint) or (hint,)
        fits = float in accepted or (isinstance(value, Integer) and wanted in accepted)
        require(fits, f"the space varies {name} by {value.domain_str} of {wanted.__name__}; it must be {_called(hint)}")


def _check_value(types: Mapping[str, Any], name: str, value: Any, *, where: str) -> None:
    hint = _type_of(types, name, where=where)
    try:
        typeguard.check_type(tuple(value) if isinstance(value, list) else value, hint)
    except typeguard.TypeCheckError:
        raise UserError(f"{where} has {value!r} for {name}; it must be {_called(hint)}") from None


def _type_of(types: Mapping[str, Any], name: str, *, where: str) -> Any:
    if name in types:
        return types[name]
    group = [other for other in types if other.startswith(f"{name}.")]
    close = difflib.get_close_matches(name, types, n=1)
    if group:
        raise UserError(f"{where} names {name}, a group of settings; choose from dictionaries, or name {group[0]}")
    raise UserError(
        f"{where} names {name}, which is no setting of the recipe{f'; perhaps {close[0]}' if close else ''}"
    )


def _called(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _text(what: Any) -> str:
    options = _options(what)
    if options is not None:
        return f"one of {', '.join(map(_text, options))}"
    if isinstance(what, Domain):
        return f"{type(what.get_sampler()).__name__.strip('_').lower()} in {what.domain_str}"
    if isinstance(what, Mapping):
        return f"{{{', '.join(f'{name}: {_text(inner)}' for name, inner in what.items())}}}"
    return str(what)
