"""The trials of a sweep on Ray in packs: each pack is a task with a CPU or a GPU of its own."""

from typing import Any

import ray
import ray.exceptions

from blitz.data.plan import Datasets
from blitz.errors import require
from blitz.launch.cluster.connection import connected
from blitz.launch.cluster.user_code import require_picklable
from blitz.launch.local.in_process import world_here
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.launch.tune.pack_checkpoint import PackCheckpoint
from blitz.launch.tune.packs import Lane, checkpoint_of, group_into_packs, max_lanes, pack_job, record_pack, run_pack
from blitz.launch.tune.resources import TrialResources, resources_on_cluster
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.trial_data import TrialData
from blitz.run_files.sweep_directory import Goal, NotMeasured, Trial, one_line
from blitz.training.packed import PackJob, why_not_packable


def packs_on_ray(
    sweep: Sweep, data: TrialData, placement: Placement, *, packed: str | int, max_concurrent: int | None
) -> None:
    """Train the trials that are left in packs.

    Raises:
        UserError: if no pack can ever start.
    """
    require_picklable(recipe=data.fitted, **{f"data set '{split}'": one for split, one in data.datasets.items()})
    with connected(placement.address):
        reserved = resources_on_cluster(sweep.directory.run, placement.scale, max_concurrent)
        # Small enough that every CPU or GPU has a pack.
        share = -(-sweep.left // reserved.max_concurrent)
        lanes = min(max_lanes(sweep, data.fitted, packed), max(1, share))
        packs = _Packs(sweep, data, reserved)
        while True:
            while len(packs.running) < reserved.max_concurrent and (trials := sweep.next_batch(lanes)):
                for pack in group_into_packs(sweep, data, trials):
                    packs.submit(pack)
            if not packs.running:
                return
            packs.wait_for_one()


class _Packs:
    """The packs that run now."""

    def __init__(self, sweep: Sweep, data: TrialData, reserved: TrialResources) -> None:
        self._sweep, self._data, self._goal = sweep, data, sweep.goal
        self._scale = Scale(num_workers=0, use_gpu="yes" if reserved.use_gpu else "no")
        cpus, gpus = reserved.resources["CPU"], reserved.resources["GPU"]
        # No retries by Ray: after a process has died, its trials are retried apart.
        self._task = ray.remote(_run).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        self._sent: tuple[Datasets, Any] | None = None
        self.running: dict[Any, tuple[list[Trial], PackJob]] = {}

    def submit(self, pack: list[Trial]) -> None:
        """Start a pack."""
        recipes = tuple(self._data.of(trial.settings)[0] for trial in pack)
        datasets = self._data.datasets
        if self._sent is None or self._sent[0] is not datasets:
            self._sent = datasets, ray.put(datasets)
        job = pack_job(self._sweep, recipes, datasets)
        checkpoint = checkpoint_of(self._sweep, pack, job)
        self.running[self._task.remote(job, self._sent[1], self._scale, self._goal, checkpoint)] = pack, job

    def wait_for_one(self) -> None:
        """Wait until a pack has ended, and record its trials; those of one that failed are submitted one by one."""
        (ended,), _ = ray.wait(list(self.running), num_returns=1)
        pack, job = self.running.pop(ended)
        try:
            lanes = ray.get(ended)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, NotMeasured):
                raise cause from error
            if len(pack) == 1:
                self._sweep.fail(pack[0].number, one_line(cause), str(error))
                return
            self._sweep.display.line(f"a pack of {len(pack)} failed ({one_line(cause)}); its trials are trained apart")
            for trial in pack:
                self.submit([trial])
        else:
            record_pack(self._sweep, pack, job, lanes, code=self._data.code)


def _run(job: PackJob, datasets: Datasets, scale: Scale, goal: Goal, checkpoint: PackCheckpoint) -> list[Lane]:
    # A setting that the space varies may be one that cannot be packed.
    reason = why_not_packable(job.recipes[0], datasets["train"], world=world_here(scale))
    require(reason is None, f"not packed: {reason}; sweep with --packed no")
    return run_pack(job, datasets, scale, goal, lambda lane, step, metrics: goal.of(metrics), checkpoint)
