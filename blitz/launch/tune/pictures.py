"""Pictures of a sweep: loss curves, the metric against each setting, and how much each setting decides."""

import io
import math
from collections.abc import Mapping
from typing import Any

from blitz.errors import UserError
from blitz.launch.tune.search import new_study, optuna_distributions
from blitz.launch.tune.sweep import SweepPlan
from blitz.training.sweep_directory import SweepDirectory, Trial

_LEAST_FOR_IMPORTANCE = 8
_MOST_CURVES = 64


def draw_pictures(plan: SweepPlan, directory: SweepDirectory, trials: list[Trial]) -> list[str]:
    """Draw what can be drawn of the trials so far into pictures/; the names of the files."""
    # Here, because it takes long to import; a figure of its own canvas needs no screen.
    from matplotlib.figure import Figure

    drawn = {"curves": _curves(Figure, plan, directory, trials)}
    for name in plan.space.names:
        drawn[f"by-{name}"] = _against(Figure, plan, trials, name)
    if found := importances(plan, trials):
        directory.run.write_json("importance.json", found)
    drawn["importance"] = _importance(Figure, found)
    for name, figure in drawn.items():
        if figure is not None:
            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=120, bbox_inches="tight")
            directory.run.write(f"pictures/{name}.png", picture.getvalue())
    return [f"{name}.png" for name, figure in drawn.items() if figure is not None]


def kind_of(plan: SweepPlan, trial: Trial) -> str:
    """The optimizer of a trial."""
    return str(trial.settings.get("optim.name", plan.recipe.optim.name))


def _colours(plan: SweepPlan, trials: list[Trial]) -> dict[str, str]:
    return {kind: f"C{number}" for number, kind in enumerate(sorted({kind_of(plan, trial) for trial in trials}))}


def _curves(figure_class: Any, plan: SweepPlan, directory: SweepDirectory, trials: list[Trial]) -> Any:
    """Training losses, each optimizer in its colour; the best of each thick."""
    colours, figure = _colours(plan, trials), figure_class(figsize=(8, 5))
    axes = figure.add_subplot(xlabel="step", ylabel="train/loss", yscale="log")
    sign = -1 if plan.higher_is_better else 1
    ranked = sorted((t for t in trials if t.best is not None), key=lambda trial: sign * (trial.best or 0.0))
    seen: set[str] = set()
    for trial in ranked[:_MOST_CURVES]:
        kind = kind_of(plan, trial)
        lines = [line for line in directory.trial_run(trial).metrics() if "train/loss" in line]
        best = kind not in seen
        axes.plot(
            [line["step"] for line in lines],
            [line["train/loss"] for line in lines],
            color=colours[kind],
            label=f"{kind}, best: {plan.metric} {trial.best:.4g}" if best else None,
            linewidth=2.0 if best else 0.6,
            alpha=1.0 if best else 0.35,
            zorder=3 if best else 2,
        )
        seen.add(kind)
    if not ranked:
        return None
    axes.legend()
    return figure


def _against(figure_class: Any, plan: SweepPlan, trials: list[Trial], name: str) -> Any:
    """The metric against a setting, coloured by optimizer; None where it is no number or does not vary."""
    shown = [(trial, trial.settings[name]) for trial in trials if name in trial.settings and trial.best is not None]
    if len({value for _, value in shown}) < 2:
        return None
    colours, figure = _colours(plan, trials), figure_class(figsize=(8, 5))
    axes = figure.add_subplot(xlabel=name, ylabel=f"best {plan.metric}")
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for _, value in shown)
    for kind, colour in colours.items():
        own = [(trial, value) for trial, value in shown if kind_of(plan, trial) == kind]
        points = [(value if numbers else str(value), trial.best) for trial, value in own]
        if points:
            axes.scatter(*zip(*points, strict=True), color=colour, label=kind, s=18)
    if numbers and min(value for _, value in shown) > 0 and _decades([value for _, value in shown]) > 1:
        axes.set_xscale("log")
    figures = [trial.best for trial, _ in shown if trial.best is not None]
    if min(figures) > 0 and _decades(figures) > 1:
        axes.set_yscale("log")
    axes.legend()
    return figure


def _decades(values: list[float]) -> float:
    return math.log10(max(values) / min(values))


def importances(plan: SweepPlan, trials: list[Trial]) -> dict[str, float]:
    """How much each dimension decides whether a trial is among the better ones; empty where too few have ended.

    PED-ANOVA (Watanabe, Bansal & Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces") as Optuna has it. They add up to 1.
    """
    ended = [trial for trial in trials if trial.best is not None and math.isfinite(trial.best)]
    if len(ended) < _LEAST_FOR_IMPORTANCE or len({trial.best for trial in ended}) < 2:
        return {}
    try:
        distributions = optuna_distributions(plan.space)
    except UserError:
        # Of a distribution that Optuna does not have it knows no importance.
        return {}
    optuna, study = new_study(plan.mode)
    study.add_trials(
        [optuna.trial.create_trial(params=trial.draw, distributions=distributions, value=trial.best) for trial in ended]
    )
    found: Mapping[str, float] = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    return dict(found)


def _importance(figure_class: Any, found: dict[str, float]) -> Any:
    if not found:
        return None
    figure = figure_class(figsize=(8, 1 + 0.4 * len(found)))
    axes = figure.add_subplot(xlabel="importance (PED-ANOVA)")
    names = sorted(found, key=lambda name: found[name])
    axes.barh(names, [found[name] for name in names])
    return figure
