"""The trials of a sweep on Ray: as trials of Ray Tune, each in a process or on Ray Train workers of its own, or packed,
a pack a task.
"""

import os
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
import ray.exceptions
from ray import tune
from ray.tune.callback import Callback
from ray.tune.experiment import Trial as RaysTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from blitz.errors import require
from blitz.launch.autoscaler import grows
from blitz.launch.cluster import connected
from blitz.launch.in_process import run_in_process, world_here
from blitz.launch.job import Datasets
from blitz.launch.on_ray import run_on_ray
from blitz.launch.scale import Node, Scale, workers_for
from blitz.launch.storage_probe import check_every_node_sees
from blitz.launch.tune.in_process import most_lanes, pack_job, packs_of, trial_job
from blitz.launch.tune.pack import Lane, record_pack, run_pack
from blitz.launch.tune.referee import Referee
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.trial_data import TrialData
from blitz.training.display import Silence
from blitz.training.packed import PackJob, why_not_packable
from blitz.training.run_directory import RunDirectory
from blitz.training.sweep_directory import Goal, NotMeasured, Trial, one_line
from blitz.training.trial import Figures, figures_of

_DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}
"""What a trial reserves that has workers of its own: nothing that they could lack, and Ray Tune wants something."""

_MOST_EVALUATIONS = 1 << 30
"""Ray Tune's ASHA wants a number for its rungs; trials, which may differ in theirs, end by themselves."""


@dataclass(frozen=True)
class Room:
    """What a trial reserves, and how many of them fit at a time."""

    resources: dict[str, float]
    most: int

    @property
    def use_gpu(self) -> bool:
        """Whether a trial has a GPU of its own."""
        return self.resources.get("GPU", 0) > 0


def room_for_trials(scale: Scale, nodes: Sequence[Node], *, grows: bool = False) -> Room:
    """What trials reserve such that those that run at a time never wait for each other.

    Raises:
        UserError: if none ever fits.
    """
    if isinstance(scale.num_workers, int):
        workers = workers_for(scale, nodes, grows=grows)
        assert isinstance(workers.count, int)
        # In places of a worker's size, any of which takes a worker or a task of Ray Data: one of these for each trial.
        places = sum(int(node.cpus / workers.cpus + 1e-6) for node in nodes)
        by_gpus = int(sum(node.gpus for node in nodes)) // workers.count if workers.gpus else places
        return Room(_DRIVER, max(1, min(places // (workers.count + 1), by_gpus)))
    cpus, gpus = scale.cpus_per_worker or 1.0, sum(node.gpus for node in nodes)
    require(scale.use_gpu != "yes" or gpus >= 1, "--scale.use-gpu yes: the cluster has no GPU; use auto or no")
    use_gpu = scale.use_gpu != "no" and gpus >= 1
    fits = [min(int(node.cpus / cpus + 1e-6), int(node.gpus) if use_gpu else 1 << 30) for node in nodes]
    require(
        sum(fits) > 0 or grows,
        f"no node of the cluster has {cpus:g} CPUs{' and a GPU' if use_gpu else ''} for a trial; ask for less with "
        "--scale.cpus-per-worker",
    )
    return Room({"CPU": cpus, "GPU": float(use_gpu)}, max(1, sum(fits)))


def _room(sweep: Sweep, scale: Scale, max_concurrent: int | None) -> Room:
    check_every_node_sees(sweep.directory.run)
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [Node(each.get("CPU", 0), each.get("GPU", 0)) for each in resources]
    room = room_for_trials(scale, nodes, grows=grows())
    return replace(room, most=min(room.most, max_concurrent or room.most))


def tune_on_ray(sweep: Sweep, data: TrialData, scale: Scale, *, max_concurrent: int | None) -> None:
    """Train every trial that is left as one of Ray Tune's.

    Raises:
        UserError: if no trial can ever start.
    """
    # Else Ray Tune takes Ctrl-C for the wish to end well, and a trial's relative paths for its own.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # Else the whole sweep ends where a trial has nothing to say but what it failed of.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    with connected(), tempfile.TemporaryDirectory(prefix="blitz-") as scratch:
        room = _room(sweep, scale, max_concurrent)
        has_workers, asha = isinstance(scale.num_workers, int), sweep.plan.scheduler == "asha"
        referee = Referee.on_ray(sweep) if has_workers and asha else None
        place = scale if has_workers else Scale(num_workers=0, use_gpu="yes" if room.use_gpu else "no")
        work = _Work(data, sweep.directory.run, sweep.goal, place, referee)
        scheduler: TrialScheduler = Asha(sweep) if asha and not has_workers else FIFOScheduler()
        notes = _Notes(sweep)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, work=work), room.resources),
            tune_config=tune.TuneConfig(
                metric="figure",
                mode=sweep.goal.mode,
                search_alg=_Draws(sweep, notes),
                scheduler=scheduler,
                num_samples=sweep.left,
                max_concurrent_trials=room.most,
            ),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0, callbacks=[notes]),
        )
        tuner.fit()
    if notes.not_measured is not None:
        raise notes.not_measured


class Asha(ASHAScheduler):
    """Ray Tune's own, which begins with what the trials came to that have ended before."""

    def __init__(self, sweep: Sweep) -> None:
        space = sweep.plan.space
        super().__init__(
            time_attr="evaluation",
            grace_period=space.grace_evaluations,
            reduction_factor=space.reduction,
            max_t=_MOST_EVALUATIONS,
            stop_last_trials=False,
        )
        self._before = [sweep.before(number) for number, trial in sorted(sweep.trials.items()) if trial.ended]

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Ray Tune says what counts, before any trial begins."""
        taken = super().set_search_properties(metric, mode, **spec)
        controller: Any = None
        for figures in self._before:
            trial = RaysTrial("ended", stub=True)
            self.on_trial_add(controller, trial)
            for evaluation, figure in enumerate(figures, start=1):
                self.on_trial_result(controller, trial, {"evaluation": evaluation, "figure": figure})
        return taken


class _Draws(Searcher):
    """Gives Ray Tune the trials of a sweep, until one shows that none will be measured."""

    def __init__(self, sweep: Sweep, notes: "_Notes") -> None:
        super().__init__(metric="figure", mode=sweep.goal.mode)
        self._sweep, self._notes = sweep, notes

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        trial = None if self._notes.not_measured else self._sweep.next()
        return Searcher.FINISHED if trial is None else {"trial": trial}  # type: ignore[return-value]

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: the sweep is told."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the sweep's own files say all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Notes(Callback):
    """Tells the sweep what Ray Tune is told."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self.not_measured: NotMeasured | None = None

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "figure" in result:
            number = trial.config["trial"].number
            self._sweep.measured(number, result["step"], {self._sweep.goal.metric: result["figure"]})

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        one: Trial = trial.config["trial"]
        if "error" in trial.last_result:
            self.not_measured = trial.last_result["not_measured"] or self.not_measured
            self._sweep.failed(one.number, trial.last_result["error"], trial.last_result["trace"])
            return
        run = self._sweep.directory.trial_run(one)
        result, plan = run.read_json("result.json"), run.read_json("plan.json")
        whole = result is not None and plan is not None and result["steps"] == plan["total_steps"]
        self._sweep.end(one.number, "finished" if whole else "stopped")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._sweep.failed(trial.config["trial"].number, "its process died; Ray's logs say why", str(trial.error_file))


@dataclass(frozen=True)
class _Work:
    data: TrialData
    directory: RunDirectory
    goal: Goal
    scale: Scale
    referee: Referee | None
    """Says whether trials on workers of their own go on: Ray Tune would kill one in the midst of its step."""


def _trial(config: dict[str, Any], work: _Work) -> None:
    """What a trial of Ray Tune's runs."""
    try:
        _train(config["trial"], work)
    except Exception as error:
        # By itself Ray Tune says neither what was raised nor where.
        not_measured = error if isinstance(error, NotMeasured) else None
        tune.report({"error": one_line(error), "trace": traceback.format_exc(), "not_measured": not_measured})


def _train(trial: Trial, work: _Work) -> None:
    recipe, datasets = work.data.of(trial.settings)
    run = work.directory.part(f"trials/{trial.id}")
    plan = recipe.plan(len(datasets["train"]), len(datasets["val"]))

    def report(step: int, figures: Figures) -> bool:
        evaluation = -(-step // plan.evaluate_every_steps)
        # After the last one there is nothing to stop, and the run is to be whole before Ray Tune knows of it.
        if step < plan.total_steps:
            tune.report({"figure": work.goal.of(figures), "step": step, "evaluation": evaluation})
        return True

    if isinstance(work.scale.num_workers, int) and work.scale.num_workers > 0:
        goes_on = partial(work.referee.goes_on, trial.number) if work.referee else _always
        job = trial_job(recipe, datasets, run, goes_on)
        if job is not None and not (work.referee and work.referee.has_stopped(trial.number)):
            run_on_ray(job, datasets, work.scale)
    elif (job := trial_job(recipe, datasets, run, report)) is not None:
        run_in_process(job, datasets, work.scale, display=Silence())
    for line in [line for line in run.metrics() if figures_of(line)][-1:]:
        evaluation = -(-line["step"] // plan.evaluate_every_steps)
        tune.report({"figure": work.goal.of(figures_of(line)), "step": line["step"], "evaluation": evaluation})


def _always(step: int, figures: Figures) -> bool:
    return True


def packs_on_ray(sweep: Sweep, data: TrialData, scale: Scale, *, packed: str | int, max_concurrent: int | None) -> None:
    """Train the trials that are left in packs, each a task of Ray's on a CPU or a GPU of its own.

    Raises:
        UserError: if no pack can ever start.
    """
    with connected():
        room = _room(sweep, scale, max_concurrent)
        place = Scale(num_workers=0, use_gpu="yes" if room.use_gpu else "no")
        most = min(most_lanes(sweep, data.fitted, packed), max(1, -(-sweep.left // room.most)))
        packs = _Packs(sweep, data, place, room)
        while True:
            while len(packs.under_way) < room.most and (trials := sweep.next_batch(most)):
                for pack in packs_of(sweep, data, trials):
                    packs.begin(pack)
            if not packs.under_way:
                return
            packs.end_one()


class _Packs:
    """Packs under way."""

    def __init__(self, sweep: Sweep, data: TrialData, scale: Scale, room: Room) -> None:
        self._sweep, self._data, self._goal, self._scale = sweep, data, sweep.goal, scale
        cpus, gpus = room.resources["CPU"], room.resources["GPU"]
        # A process that dies is tried again by us, with its trials apart.
        self._task = ray.remote(_pack).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        self._sent: tuple[Datasets, Any] | None = None
        self.under_way: dict[Any, tuple[list[Trial], PackJob]] = {}

    def begin(self, pack: list[Trial]) -> None:
        """Begin a pack."""
        recipes = tuple(self._data.of(trial.settings)[0] for trial in pack)
        datasets = self._data.datasets
        if self._sent is None or self._sent[0] is not datasets:
            self._sent = datasets, ray.put(datasets)
        job = pack_job(self._sweep, recipes, datasets)
        self.under_way[self._task.remote(job, self._sent[1], self._scale, self._goal)] = pack, job

    def end_one(self) -> None:
        """Wait until one has ended, and note what its trials came to."""
        (ended,), _ = ray.wait(list(self.under_way), num_returns=1)
        pack, job = self.under_way.pop(ended)
        try:
            lanes = ray.get(ended)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, NotMeasured):
                raise cause from error
            if len(pack) == 1:
                self._sweep.failed(pack[0].number, one_line(cause), str(error))
                return
            self._sweep.display.line(f"a pack of {len(pack)} failed ({one_line(cause)}); its trials are trained apart")
            for trial in pack:
                self.begin([trial])
        else:
            record_pack(self._sweep, pack, job, lanes)


def _pack(job: PackJob, datasets: Datasets, scale: Scale, goal: Goal) -> list[Lane]:
    # What a space varies may be what cannot be packed.
    reason = why_not_packable(job.recipes[0], datasets["train"], world=world_here(scale))
    require(reason is None, f"not packed: {reason}; sweep with --packed no")
    return run_pack(job, datasets, scale, goal, told=lambda lane, step, figures: goal.of(figures))
