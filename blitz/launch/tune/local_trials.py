"""The trials of a sweep in this process: packed where possible, otherwise one after another."""

from blitz.launch.local.in_process import run_in_process, world_here
from blitz.launch.scale import Scale
from blitz.launch.tune.asha import AsyncHalving
from blitz.launch.tune.packs import checkpoint_of, group_into_packs, pack_job, record_pack, run_pack
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.trial_data import TrialData
from blitz.launch.tune.trials import train_trial
from blitz.run_files.sweep_directory import NotMeasured, Trial, one_line
from blitz.training.display import Silence
from blitz.training.packed import why_not_packable
from blitz.training.trial import MetricValues


def one_after_another(sweep: Sweep, data: TrialData, scale: Scale) -> None:
    """Train every trial that is left, each from its newest checkpoint on."""
    solo = SoloTrials(sweep, data, scale)
    while (trial := sweep.next()) is not None:
        solo.train(trial)


def in_packs(sweep: Sweep, data: TrialData, scale: Scale, *, max_lanes: int) -> None:
    """Train the trials that are left in packs of at most `max_lanes`; what cannot be packed, one after another."""
    solo = SoloTrials(sweep, data, scale)
    explained = set()
    while trials := sweep.next_batch(max_lanes):
        for pack in group_into_packs(sweep, data, trials):
            reason = _train_pack(sweep, data, scale, pack)
            if reason is None:
                continue
            if reason not in explained:
                sweep.display.line(f"not packed: {reason}")
                explained.add(reason)
            for trial in pack:
                solo.train(trial)


def _train_pack(sweep: Sweep, data: TrialData, scale: Scale, pack: list[Trial]) -> str | None:
    """Train a pack and record its trials; if it cannot be trained as one, nothing is recorded and this is why."""
    if len(pack) == 1:
        return "a trial that shares its model with no other"
    numbers = [trial.number for trial in pack]

    def on_evaluation(lane: int, step: int, metrics: MetricValues) -> None:
        sweep.record(numbers[lane], step, metrics)

    try:
        recipes = tuple(data.of(trial.settings)[0] for trial in pack)
        datasets = data.datasets
        if reason := why_not_packable(recipes[0], datasets["train"], world=world_here(scale)):
            return reason
        job = pack_job(sweep, recipes, datasets)
        lanes = run_pack(job, datasets, scale, sweep.goal, on_evaluation, checkpoint_of(sweep, pack, job))
    except NotMeasured:
        raise
    except Exception as error:
        # Trained by itself, each trial shows whether it was the cause.
        return one_line(error)
    record_pack(sweep, pack, job, lanes, code=data.code)
    return None


class SoloTrials:
    """Trains trials by themselves in this process."""

    def __init__(self, sweep: Sweep, data: TrialData, scale: Scale) -> None:
        self._sweep, self._data, self._scale = sweep, data, scale
        self._halving = AsyncHalving.of(sweep) if sweep.plan.scheduler == "asha" else None

    def train(self, trial: Trial) -> None:
        """Train a trial from its newest checkpoint on, and record how it ended."""
        sweep, halving, number = self._sweep, self._halving, trial.number

        def should_continue(step: int, metrics: MetricValues) -> bool:
            value = sweep.record(number, step, metrics)
            return halving is None or halving.should_continue(number, value)

        with sweep.recording_failure(trial):
            recipe, datasets = self._data.of(trial.settings)
            reached_the_end = train_trial(
                recipe,
                datasets,
                sweep.directory.trial_run(trial),
                lambda job: run_in_process(job, datasets, self._scale, display=Silence()),
                code=self._data.code,
                should_continue=should_continue,
                was_stopped=halving is not None and halving.has_stopped(number),
            )
            sweep.end(number, "finished" if reached_the_end else "stopped")
