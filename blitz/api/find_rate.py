"""The learning-rate finder: a short run at rising rates, and the rate at which the loss falls fastest."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from blitz.api.train_run import Say, TrainSettings, recipe_of
from blitz.errors import RunFailed, require
from blitz.extras import MissingExtra
from blitz.launch.launch import launch, placed
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.objects import Objects
from blitz.optim import Swa
from blitz.outputs.best import Best
from blitz.outputs.plots import rate_curve
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import finished_result, open_run
from blitz.training.loop import TrainJob
from blitz.training.prepared import prepare

_STEPS = 100
_HIGHEST = 10.0
"""The last rate; the first is 1e-8 of it, as in fastai."""
_DIVERGED = 4.0
"""A loss this many times the lowest so far ends the curve."""
_WINDOW = 9
"""Steps that are averaged around each."""
PICTURE = "pictures/learning-rates.png"


@dataclass(frozen=True)
class LearningRates:
    """The curve of a learning-rate finder."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """The training loss of each step, in the order of the rates."""

    def _smooth(self) -> tuple[list[float], list[float]]:
        """Logarithms of the rates, and the mean losses around them, up to where the loss diverges."""
        lowest = np.minimum.accumulate(self.losses)
        # Losses may be negative: what counts is the rise since the lowest, in units of the fall before it.
        fall = np.maximum(self.losses[0] - lowest, abs(self.losses[0]) / _DIVERGED)
        above = np.flatnonzero(np.array(self.losses) - lowest > (_DIVERGED - 1) * fall)
        end = int(above[0]) if len(above) else len(self.losses)
        if end < 2 * _WINDOW:
            return [], []
        kernel = np.ones(_WINDOW) / _WINDOW
        logs, losses = (np.convolve(each[:end], kernel, "valid") for each in (np.log(self.rates), self.losses))
        return logs.tolist(), losses.tolist()

    @property
    def proposed(self) -> float | None:
        """The rate at which the loss falls fastest (Smith 2017), to two digits; None if it never falls."""
        logs, losses = self._smooth()
        if not logs:
            return None
        slopes = np.gradient(losses, logs)
        steepest = int(slopes.argmin())
        return float(f"{math.exp(logs[steepest]):.1e}") if slopes[steepest] < 0 else None

    @property
    def lowest(self) -> float | None:
        """The rate at which the loss is lowest, to two digits: more is too much."""
        logs, losses = self._smooth()
        return float(f"{math.exp(logs[int(np.argmin(losses))]):.1e}") if logs else None


def find_rate(
    settings: TrainSettings, *, address: str | None = None, say: Say = print
) -> tuple[LearningRates, RunDirectory]:
    """Take 100 steps at rates from 1e-7 to 10 in a run of its own, or until the loss is not finite.

    The run's picture is `pictures/learning-rates.png`. The steps are those of the training loop, so that any number of
    workers finds the same.

    Raises:
        UserError: if the run cannot start.
        RunFailed: if it ends for another reason than its loss.
    """
    # The loss will not be finite at last, and no restart would change that.
    scale = replace(settings.scale, max_failures=0)
    placement = Placement(scale, address) if address else Placement(scale)
    with placed(placement):
        prepared = prepare(_short(settings.recipe))
        name = None if settings.run is None else f"{settings.run}-find-lr"
        run = open_run(prepared.recipe, storage=settings.storage, run=name, resume="auto")
        say(f"run: {run}")
        if finished_result(run, prepared.plan, patience=None) is None:
            with run.locked():
                prepared.begin(run)
                try:
                    launch(TrainJob(prepared.recipe, prepared.plan, run), prepared.datasets, placement)
                except RunFailed:
                    if not _has_diverged(run):
                        raise
    lines = [line for line in run.metrics() if "train/loss" in line]
    require(bool(lines), f"{run}: the loss is not finite in the first step; the rate is not the reason")
    found = LearningRates(tuple(line["lr"] for line in lines), tuple(line["train/loss"] for line in lines))
    _draw(found, run, say)
    return found, run


def _short(recipe: Recipe) -> Recipe:
    """A recipe of 100 steps at rates that rise, without evaluations but for one row at the end."""
    optim = replace(
        recipe.optim,
        lr=_HIGHEST,
        schedule="exponential",
        schedule_epochs=None,
        warmup_steps=0,
        warmup_fraction=None,
    )
    return replace(
        recipe,
        optim=optim,
        epochs=_STEPS,
        max_steps=_STEPS,
        evaluate_every_steps=_STEPS,
        max_eval_rows=1,
        log_every_steps=1,
        best=Best(),
        extra_metrics=(),
        patience=None,
        ema=None,
        swa=Swa(),
        on_nan="stop",
    )


def _has_diverged(run: RunDirectory) -> bool:
    ended = [event for event in run.events() if event["what"] == "failed"]
    return bool(ended) and str(ended[-1].get("error", "")).startswith("Diverged")


def _draw(found: LearningRates, run: RunDirectory, say: Say) -> None:
    try:
        figure = rate_curve(found.rates, found.losses, found.proposed)
    except MissingExtra as missing:
        say(str(missing))
        return
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120, metadata={"Software": None})
    run.write(PICTURE, png.getvalue())
    say(f"picture: {run}/{PICTURE}")


def proposal(found: LearningRates) -> Sequence[str]:
    """What the curve says, in lines."""
    if found.proposed is None:
        return ["the loss falls at none of the rates; the model may not learn from this data, or has no loss to lower"]
    return [
        f"the loss falls fastest at --optim.lr {found.proposed:g}, and is lowest at {found.lowest:g}",
        "the peak of a schedule with warm-up may be higher than a constant rate; never above the lowest",
    ]


def find_lr(
    recipe: str | Path | Recipe | type[Recipe],
    *,
    run: str | None = None,
    storage: str | Path = "runs",
    num_workers: Literal["auto"] | int | None = None,
    use_gpu: Literal["auto", "yes", "no"] = "auto",
    address: str | None = None,
    **settings: Any,
) -> LearningRates:
    """The curve of `blitz train RECIPE --find-lr`, and the learning rate that it proposes.

    Args:
        recipe: as for `blitz.train`.
        run: the name of the run is this and `-find-lr`.
        storage: where runs lie.
        num_workers: 0 for this process, N for N workers on Ray.
        use_gpu: `auto` uses GPUs where there are some.
        address: the Ray cluster.
        settings: fields of the recipe by their names.

    Raises:
        UserError: if it cannot start.
    """
    chosen = recipe_of(recipe, Objects(), settings)
    scale = Scale(use_gpu=use_gpu) if num_workers is None else Scale(num_workers=num_workers, use_gpu=use_gpu)
    return find_rate(TrainSettings(chosen, run=run, storage=str(storage), scale=scale), address=address)[0]
