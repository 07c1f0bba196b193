"""Plots of a sweep: loss curves, the metric against each setting, and the importance of each setting."""

import io
import math
from typing import TYPE_CHECKING

from blitz.errors import UserError
from blitz.launch.tune.search import new_study, optuna_distributions
from blitz.launch.tune.sweep import Sweep
from blitz.run_files.sweep_directory import Trial, each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MIN_TRIALS_FOR_IMPORTANCE = 8
_MAX_CURVES = 64
_INCHES = (8, 5)


def draw_pictures(sweep: Sweep) -> list[str]:
    """Draw the trials so far into pictures/; the names of the files."""
    # Imported here because it takes long. A Figure without pyplot needs no screen.
    from matplotlib.figure import Figure

    directory, trials = sweep.directory, sorted(sweep.trials.values(), key=sweep.rank)
    drawn = {"curves": _curves(Figure(figsize=_INCHES), sweep, trials)}
    for name in sweep.plan.space.names:
        drawn[f"by-{name}"] = _against(Figure(figsize=_INCHES), sweep, trials, name)
    if found := importances(sweep, trials):
        directory.run.write_json("importance.json", found)
    drawn["importance"] = _importance(Figure(figsize=(8, 1 + 0.4 * len(found))), found)
    for name, figure in drawn.items():
        if figure is not None:
            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=120, bbox_inches="tight")
            directory.run.write(f"pictures/{name}.png", picture.getvalue())
    return [f"{name}.png" for name, figure in drawn.items() if figure is not None]


def _kind_of(sweep: Sweep, trial: Trial) -> str:
    """The optimizer of a trial."""
    return str(trial.settings.get("optim.name") or sweep.plan.recipe.optim.name or "default")


def _colours(sweep: Sweep, trials: list[Trial]) -> dict[str, str]:
    return {kind: f"C{number}" for number, kind in enumerate(sorted({_kind_of(sweep, trial) for trial in trials}))}


def _curves(figure: "Figure", sweep: Sweep, trials: list[Trial]) -> "Figure | None":
    """Training losses in the colour of the optimizer; the best curve of each is thick."""
    shown = [trial for trial in trials if trial.best is not None][:_MAX_CURVES]
    curves = each(lambda trial: sweep.directory.trial_run(trial).metrics(), shown)
    axes, colours = figure.add_subplot(xlabel="step", ylabel="train/loss", yscale="log"), _colours(sweep, trials)
    seen: set[str] = set()
    for trial, metrics in zip(shown, curves, strict=True):
        kind, points = _kind_of(sweep, trial), [line for line in metrics if "train/loss" in line]
        best = kind not in seen
        seen.add(kind)
        axes.plot(
            [line["step"] for line in points],
            [line["train/loss"] for line in points],
            color=colours[kind],
            label=f"{kind}, best: {sweep.goal.metric} {trial.best:.4g}" if best else None,
            linewidth=2.0 if best else 0.6,
            alpha=1.0 if best else 0.35,
            zorder=3 if best else 2,
        )
    if not shown:
        return None
    axes.legend()
    return figure


def _against(figure: "Figure", sweep: Sweep, trials: list[Trial], name: str) -> "Figure | None":
    """The metric against a setting, coloured by optimizer; None if the setting does not vary."""
    shown = [(trial, trial.settings[name]) for trial in trials if name in trial.settings and trial.best is not None]
    values, metrics = [value for _, value in shown], [trial.best for trial, _ in shown if trial.best is not None]
    if len(set(values)) < 2:
        return None
    axes = figure.add_subplot(xlabel=name, ylabel=f"best {sweep.goal.metric}")
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    for kind, colour in _colours(sweep, trials).items():
        own = [index for index, (trial, _) in enumerate(shown) if _kind_of(sweep, trial) == kind]
        x = [values[index] if numbers else str(values[index]) for index in own]
        axes.scatter(x, [metrics[index] for index in own], color=colour, label=kind if own else None, s=18)
    if numbers and _spans_decades(values):
        axes.set_xscale("log")
    if _spans_decades(metrics):
        axes.set_yscale("log")
    axes.legend()
    return figure


def _spans_decades(values: list[float]) -> bool:
    return min(values) > 0 and math.isfinite(max(values)) and max(values) > 10 * min(values)


def importances(sweep: Sweep, trials: list[Trial]) -> dict[str, float]:
    """The importance of each dimension for being among the better trials; empty where too few have ended.

    PED-ANOVA (Watanabe, Bansal & Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces"), Optuna's implementation. They add up to 1.
    """
    ended = [(trial.draw, trial.best) for trial in trials if trial.best is not None and math.isfinite(trial.best)]
    if len(ended) < _MIN_TRIALS_FOR_IMPORTANCE or len({best for _, best in ended}) < 2:
        return {}
    try:
        distributions = optuna_distributions(sweep.plan.space)
    except UserError:
        # Optuna gives no importance for a distribution that it does not have.
        return {}
    optuna, study = new_study(sweep.goal.mode)
    make = optuna.trial.create_trial
    study.add_trials([make(params=draw, distributions=distributions, value=best) for draw, best in ended])
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _importance(figure: "Figure", found: dict[str, float]) -> "Figure | None":
    if not found:
        return None
    axes = figure.add_subplot(xlabel="importance (PED-ANOVA)")
    names = sorted(found, key=lambda name: found[name])
    axes.barh(names, [found[name] for name in names])
    return figure
