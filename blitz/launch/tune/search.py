"""Search algorithms: at random, in a grid, or with Optuna.

The draw of trial n is a function of the seed, of n and, for Optuna, of the results of earlier trials. So a sweep that
is resumed or extended continues with the same draws.
"""

import itertools
import math
from typing import Any, Protocol

import numpy as np
from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform, Quantized, Uniform

from blitz.errors import UserError
from blitz.launch.tune.space import Draw, Space
from blitz.randomness import Use, key_for
from blitz.run_files.sweep_directory import Mode


class Search(Protocol):
    """A search algorithm."""

    def draw(self, number: int) -> Draw | None:
        """The values of trial `number`; None if there are no more."""

    def add_running(self, number: int, draw: Draw) -> None:
        """Register a trial that was drawn before and has no result yet."""

    def tell(self, number: int, draw: Draw, value: float | None) -> None:
        """Register the result of trial `number`; None if it failed."""


def search_of(name: str, space: Space, *, seed: int, mode: Mode) -> Search:
    """The search algorithm of this name.

    Raises:
        UserError: if it cannot draw from this space.
    """
    match name:
        case "random":
            return RandomSearch(space, seed)
        case "grid":
            return GridSearch(space)
    return OptunaSearch(space, seed, mode)


class RandomSearch:
    """Independent draws."""

    def __init__(self, space: Space, seed: int) -> None:
        self._dimensions, self._seed = space.dimensions, seed

    def draw(self, number: int) -> Draw | None:
        """Ray Tune's distributions, drawn from a generator of the seed and the number alone."""
        random = np.random.default_rng(key_for(Use.SEARCH, self._seed, number))
        return {name: _plain(domain.sample(random_state=random)) for name, domain in self._dimensions.items()}

    def add_running(self, number: int, draw: Draw) -> None:
        """Nothing to do: draws do not depend on it."""

    def tell(self, number: int, draw: Draw, value: float | None) -> None:
        """Nothing to do: draws do not depend on it."""


class GridSearch:
    """Every combination of choices and of evenly spaced values of ranges, in the order of the space."""

    def __init__(self, space: Space) -> None:
        levels = {name: _levels(name, domain, space.grid_points) for name, domain in space.dimensions.items()}
        draws = (dict(zip(levels, values, strict=True)) for values in itertools.product(*levels.values()))
        # Draws that differ only in options of a choice that was not taken give the same settings: one is kept.
        self._draws = list({repr(space.settings(draw)): draw for draw in reversed(list(draws))}.values())[::-1]

    def __len__(self) -> int:
        return len(self._draws)

    def draw(self, number: int) -> Draw | None:
        """The next combination."""
        return self._draws[number] if number < len(self._draws) else None

    def add_running(self, number: int, draw: Draw) -> None:
        """Nothing to do: draws do not depend on it."""

    def tell(self, number: int, draw: Draw, value: float | None) -> None:
        """Nothing to do: draws do not depend on it."""


class OptunaSearch:
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011)."""

    def __init__(self, space: Space, seed: int, mode: Mode) -> None:
        self._seed = seed
        self._distributions = optuna_distributions(space)
        self._optuna, self._study = new_study(mode)
        self._running: dict[int, Any] = {}

    def draw(self, number: int) -> Draw | None:
        """A proposal of the sampler, whose random state depends on the seed and the number only."""
        sampler = self._optuna.samplers.TPESampler
        self._study.sampler = sampler(seed=key_for(Use.SEARCH, self._seed, number) % (1 << 32), constant_liar=True)
        self._running[number] = self._study.ask(self._distributions)
        return {name: _plain(value) for name, value in self._running[number].params.items()}

    def add_running(self, number: int, draw: Draw) -> None:
        """Register it as a running trial of the study."""
        self._study.enqueue_trial(draw)
        self._running[number] = self._study.ask(self._distributions)

    def tell(self, number: int, draw: Draw, value: float | None) -> None:
        """Add the result to the study, for the next draws."""
        if number not in self._running:
            self.add_running(number, draw)
        failed = value is None or not math.isfinite(value)
        state = self._optuna.trial.TrialState
        self._study.tell(
            self._running.pop(number), None if failed else value, state=state.FAIL if failed else state.COMPLETE
        )


def new_study(mode: Mode) -> tuple[Any, Any]:
    """The module `optuna` and a new study in memory."""
    # Imported here because it takes long and other searches do not need it.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna, optuna.create_study(direction="maximize" if mode == "max" else "minimize")


def optuna_distributions(space: Space) -> dict[str, Any]:
    """The dimensions of a space as Optuna distributions.

    Raises:
        UserError: if Optuna has no such distribution.
    """
    from ray.tune.search.optuna import OptunaSearch as RaysSearch

    found: dict[str, Any] = {}
    for name, domain in space.dimensions.items():
        try:
            (found[name],) = RaysSearch.convert_search_space({"x": domain}).values()
        except ValueError:
            raise UserError(
                f"--search optuna cannot draw {name} from {type(domain.get_sampler()).__name__}; "
                "take a range, such as uniform or loguniform, or --search random"
            ) from None
    return found


def _plain(value: Any) -> Any:
    """`value` as a Python number, because JSON has no numpy types."""
    return value.item() if isinstance(value, np.generic) else value


def _levels(name: str, domain: Domain, points: int) -> list[Any]:
    if isinstance(domain, Categorical):
        return list(domain.categories)
    sampler: Any = domain.get_sampler()
    step = None
    if isinstance(sampler, Quantized):
        sampler, step = sampler.sampler, sampler.q
    if not isinstance(sampler, Uniform | LogUniform) or not isinstance(domain, Float | Integer):
        raise UserError(f"--search grid: {name} has no bounds; take a range or a choice, or --search random")
    spaced = np.geomspace if isinstance(sampler, LogUniform) else np.linspace
    # Ray's integer ranges exclude their upper bound, unless they are quantised.
    upper = domain.upper - 1 if isinstance(domain, Integer) and step is None else domain.upper
    values = spaced(domain.lower, upper, points)
    if isinstance(domain, Integer) or step is not None:
        step = step or 1
        values = np.unique(np.round(values / step) * step)
    return [int(value) if isinstance(domain, Integer) else float(value) for value in values]
