"""The trials of a sweep as trials of Ray Tune, each in a process or on Ray Train workers of its own."""

import os
import tempfile
import traceback
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
from ray import tune
from ray.tune.callback import Callback
from ray.tune.search import Searcher

from blitz.errors import require
from blitz.launch.cluster.connection import connected, on_the_drivers_node
from blitz.launch.cluster.ray_internals import through_client
from blitz.launch.cluster.ray_train import run_on_ray
from blitz.launch.cluster.user_code import require_picklable
from blitz.launch.local.in_process import run_in_process
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.launch.tune.asha import AsyncHalving, halving_state
from blitz.launch.tune.resources import resources_on_cluster
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.trial_data import TrialData
from blitz.launch.tune.trials import train_trial
from blitz.run_files.directory import RunDirectory
from blitz.run_files.sweep_directory import Goal, NotMeasured, Trial, one_line
from blitz.training.display import Silence
from blitz.training.trial import MetricValues, TrialJob, evaluation_metrics

_SETTINGS = {
    # Otherwise Ray Tune treats Ctrl-C as a request to end well, and a trial's relative paths as its own.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Otherwise the whole sweep ends where a trial fails before its first evaluation.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}
"""Settings that Ray Tune reads from the environment only."""


def tune_on_ray(sweep: Sweep, data: TrialData, placement: Placement, *, max_concurrent: int | None) -> None:
    """Train every trial that is left as a trial of Ray Tune.

    Raises:
        UserError: if no trial can ever start.
    """
    os.environ.update(_SETTINGS)
    scale = placement.scale
    require_picklable(recipe=data.fitted, **{f"data set '{split}'": one for split, one in data.datasets.items()})
    with connected(placement.address) as is_private, tempfile.TemporaryDirectory(prefix="blitz-") as scratch:
        require(
            not through_client(),
            "a sweep that is not packed cannot be started through Ray Client (ray://…); give HOST:6379 on a node of "
            "the cluster, or use `ray job submit -- blitz tune …`",
        )
        reserved = resources_on_cluster(sweep.directory.run, scale, max_concurrent)
        if scale.num_workers == "auto":
            scale = Scale(num_workers=0, use_gpu="yes" if reserved.use_gpu else "no")
        halving = _RemoteHalving.of(sweep) if sweep.plan.scheduler == "asha" else None
        work = _Work(data, sweep.directory.run, sweep.goal, replace(placement, scale=scale), halving, is_private)
        recorder = _Recorder(sweep)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_run_trial, work=work), reserved.resources),
            tune_config=tune.TuneConfig(
                metric="value",
                mode=sweep.goal.mode,
                search_alg=_TrialsOfSweep(sweep, recorder),
                num_samples=sweep.left,
                max_concurrent_trials=reserved.max_concurrent,
            ),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0, callbacks=[recorder]),
        )
        tuner.fit()
    if recorder.not_measured is not None:
        raise recorder.not_measured


@dataclass(frozen=True)
class _Work:
    """What all trials of a sweep share."""

    data: TrialData
    sweep: RunDirectory
    goal: Goal
    placement: Placement
    halving: "_RemoteHalving | None"
    private_cluster: bool


def _run_trial(config: dict[str, Any], work: _Work) -> None:
    """Run one trial of Ray Tune; its last report says how it ended."""
    try:
        last = _train(config["trial"], work)
    except Exception as error:
        # Ray Tune itself reports neither the exception nor its traceback.
        not_measured = error if isinstance(error, NotMeasured) else None
        last = {"error": one_line(error), "trace": traceback.format_exc(), "not_measured": not_measured}
    tune.report(last)


def _train(trial: Trial, work: _Work) -> dict[str, Any]:
    recipe, datasets = work.data.of(trial.settings)
    run = work.sweep.part(f"trials/{trial.id}")
    scale, halving, number = work.placement.scale, work.halving, trial.number
    total_steps = recipe.plan(len(datasets["train"]), len(datasets["val"])).total_steps

    def report_and_continue(step: int, metrics: MetricValues) -> bool:
        # The last evaluation is reported by the caller, once the run is complete.
        if step < total_steps:
            tune.report({"value": work.goal.of(metrics), "step": step})
        return halving is None or halving.should_continue(number, step, metrics)

    def launch(job: TrialJob) -> None:
        if work.placement.in_process:
            run_in_process(job, datasets, scale, display=Silence())
        else:
            run_on_ray(job, datasets, work.placement, private_cluster=work.private_cluster)

    # `tune.report` works in the trial's own process only, not on its Ray Train workers.
    on_workers = partial(halving.should_continue, number) if halving else _always
    reached_the_end = train_trial(
        recipe,
        datasets,
        run,
        launch,
        code=work.data.code,
        should_continue=report_and_continue if work.placement.in_process else on_workers,
        was_stopped=halving is not None and halving.has_stopped(number),
    )
    last: dict[str, Any] = {"reached_the_end": reached_the_end}
    evaluations = [line for line in run.metrics() if evaluation_metrics(line)]
    if evaluations:
        last |= {"value": work.goal.of(evaluation_metrics(evaluations[-1])), "step": evaluations[-1]["step"]}
    return last


def _always(step: int, metrics: MetricValues) -> bool:
    return True


@dataclass(frozen=True)
class _RemoteHalving:
    """The halving of trials in other processes, as an actor.

    Trials stop themselves by it. Ray Tune's scheduler would kill them, those on Ray Train workers in the middle of a
    step, and would decide by a percentile of its own rather than by `Rungs`.
    """

    actor: Any
    goal: Goal

    @classmethod
    def of(cls, sweep: Sweep) -> "_RemoteHalving":
        """A new actor, which lives as long as this process."""
        options = {"num_cpus": 0, "scheduling_strategy": on_the_drivers_node()}
        return cls(ray.remote(AsyncHalving).options(**options).remote(*halving_state(sweep)), sweep.goal)

    def should_continue(self, number: int, step: int, metrics: MetricValues) -> bool:
        """Whether trial `number` continues after an evaluation."""
        return bool(ray.get(self.actor.should_continue.remote(number, self.goal.of(metrics))))

    def has_stopped(self, number: int) -> bool:
        """Whether trial `number` was stopped."""
        return bool(ray.get(self.actor.has_stopped.remote(number)))


class _TrialsOfSweep(Searcher):
    """Gives Ray Tune the trials of a sweep, until one shows that the metric is never measured."""

    def __init__(self, sweep: Sweep, recorder: "_Recorder") -> None:
        super().__init__(metric="value", mode=sweep.goal.mode)
        self._sweep, self._recorder = sweep, recorder

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        trial = None if self._recorder.not_measured else self._sweep.next()
        return Searcher.FINISHED if trial is None else {"trial": trial}  # type: ignore[return-value]

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to do: `_Recorder` informs the sweep."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the sweep's own files hold its state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do: the sweep's own files hold its state."""


class _Recorder(Callback):
    """Records in the sweep what trials report to Ray Tune."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self.not_measured: NotMeasured | None = None

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "value" in result:
            number = trial.config["trial"].number
            self._sweep.record(number, result["step"], {self._sweep.goal.metric: result["value"]})

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        number, last = trial.config["trial"].number, trial.last_result
        if "error" in last:
            self.not_measured = last["not_measured"] or self.not_measured
            self._sweep.fail(number, last["error"], last["trace"])
        else:
            self._sweep.end(number, "finished" if last["reached_the_end"] else "stopped")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._sweep.fail(trial.config["trial"].number, "its process died; Ray's logs say why", str(trial.error_file))
