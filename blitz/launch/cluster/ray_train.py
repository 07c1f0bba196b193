"""A job on Ray: N Ray Train workers, and a feed that gives them their rows."""

import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import ray.train
import ray.train.torch
import torch
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from blitz.data.plan import Block, Datasets, Shares
from blitz.errors import RunFailed
from blitz.launch.cluster.autoscaler import grows
from blitz.launch.cluster.connection import alive_nodes, connected, environment, on_the_drivers_node
from blitz.launch.cluster.driver import in_the_cluster
from blitz.launch.cluster.failures import DEATHS, StopAtUserErrors, explain_failure
from blitz.launch.cluster.feeds import Feed, MemoryFeed, feed_of
from blitz.launch.cluster.hang_watch import HangWatch, heartbeat
from blitz.launch.cluster.ray_internals import lean_trainer
from blitz.launch.cluster.restart_times import NotesFailures, restart_times
from blitz.launch.cluster.storage_probe import check_every_node_sees
from blitz.launch.cluster.straggler_watch import StragglerWatch
from blitz.launch.cluster.user_code import require_picklable
from blitz.launch.cluster.worker_display import Watch, displayed, worker_display
from blitz.launch.cluster.worker_log import collected
from blitz.launch.hang import TrainingPulse
from blitz.launch.job import Job, row_bytes_of
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale, Workers, explain_wait, workers_for
from blitz.launch.stacks import created_at
from blitz.launch.straggler import SpeedReader
from blitz.run_files.directory import RunDirectory
from blitz.training.clock import Clock
from blitz.training.loop import TrainJob
from blitz.training.session import Origin, Preemption, Session
from blitz.training.world import World

SECONDS_BETWEEN_HEALTH_CHECKS = 0.5
"""Between polls of the workers by Ray Train, which detect that they are done or have failed; 2 by default."""
_SETTINGS = {
    # Otherwise Ray Train's workers print everything twice.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(SECONDS_BETWEEN_HEALTH_CHECKS),
}
"""Settings that Ray Train reads from the environment only."""
_PRIVATE_SETTINGS = {
    # A process that costs 2 seconds of CPU time, for nodes that are drained; nobody drains this one.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
_ELASTIC_SETTINGS = {
    # How long workers may wait for room before their number is decided again: for up to 20 seconds Ray still counts
    # on a lost node; 60 by default.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
}

_PREEMPTION_GRACE_S = 10.0
"""Once a machine is gone, Ray Train would end the ranks on the others at once, and with them an upload that is still
under way; ranks that have lost their peers end by themselves as soon as theirs is done."""


def run_on_ray(job: Job, datasets: Datasets, placement: Placement, *, private_cluster: bool = False) -> None:
    """Run a job on the placement's cluster, or on a local one that lives as long as the job.

    `private_cluster` is whether the cluster that this process is in was started for the command alone.

    Raises:
        UserError: if what the job consists of cannot be sent to workers, or if the cluster does not answer, can never
            give what `scale` asks for, or has a node that does not see the run directory.
    """
    scale = placement.scale
    require_picklable(recipe=job.recipe, **{f"data set '{split}'": dataset for split, dataset in datasets.items()})
    with connected(placement.address) as is_private:
        is_private |= private_cluster
        workers = in_the_cluster(_workers, scale)
        if workers.room_for is not None:
            print(f"waits for the cluster to grow: {explain_wait(workers)}", flush=True)
        if not is_private:
            check_every_node_sees(job.run)
        # Restarted on another node if the driver's is lost: without the queue every restart of the workers would fail.
        restarted = {"max_restarts": -1, "max_task_retries": -1}
        queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_the_drivers_node(), **restarted})
        # Evaluation and prediction have no steps by which one could see that they stand still.
        is_watched = scale.hang_timeout_s is not None and isinstance(job, TrainJob)
        hangs = HangWatch(job.run, restarts=scale.max_failures > 0)
        watches: list[Watch] = [hangs, StragglerWatch(job.run)] if is_watched else []
        with displayed(queue, watches, first_step=job.first_step(), total_steps=job.plan.total_steps):
            try:
                in_the_cluster(_train, job, datasets, scale, workers, queue, is_private)
            except RunFailed as failed:
                if not hangs.ended_for:
                    raise
                raise RunFailed(f"{hangs.ended_for}; the same command resumes the run") from failed


def _workers(scale: Scale) -> Workers:
    return workers_for(scale, alive_nodes(), grows=grows())


def _train(job: Job, datasets: Datasets, scale: Scale, workers: Workers, queue: Queue, private_cluster: bool) -> None:
    row_bytes = row_bytes_of(datasets)
    feed = feed_of(scale.feed, datasets, row_bytes=row_bytes, task_cpus=workers.task_cpus)
    elastic = _ELASTIC_SETTINGS if scale.max_workers is not None else {}
    settings = _SETTINGS | elastic | (_PRIVATE_SETTINGS if private_cluster else {})
    with environment(settings), tempfile.TemporaryDirectory(prefix="blitz-") as scratch:
        trainer = lean_trainer(
            _work,
            private_cluster=private_cluster,
            train_loop_config={
                "work": _Work(job, feed, row_bytes, queue, scale.shard == "full", scale.hang_timeout_s, time.time())
            },
            scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]
                num_workers=workers.count,  # type: ignore[arg-type]
                use_gpu=workers.gpus > 0,
                resources_per_worker={"CPU": workers.cpus, "GPU": workers.gpus},
                elastic_resize_monitor_interval_s=scale.resize_every_s,
            ),
            run_config=ray.train.RunConfig(
                storage_path=scratch,
                failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]
                    max_failures=scale.max_failures,
                    # Preemption does not count as a failure: it says nothing about whether the run can finish.
                    max_preemption_failures=-1,
                    # Ranks that are left do not wait in Ray's own barriers for those that are gone.
                    relax_collectives_on_preemption=True,
                    preemption_grace_s=_PREEMPTION_GRACE_S,
                ),
                callbacks=[NotesFailures(job.run), StopAtUserErrors()],  # type: ignore[list-item]
            ),
        )
        try:
            _fit(trainer, job.run)
        finally:
            feed.close()


def _fit(trainer: TorchTrainer, run: RunDirectory) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if threading.current_thread() is threading.main_thread():
        # `ray job stop` sends SIGTERM. Ray's handler exits at once, which leaves an actor of Ray Train behind.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        trainer.fit()
    except SystemExit:
        # Ray Train raises it at Ctrl-C, once it has stopped the workers.
        raise KeyboardInterrupt from None
    except (ray.train.TrainingFailedError, *DEATHS) as error:
        raise explain_failure(error, run) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(frozen=True)
class _Work:
    job: Job
    feed: Feed
    row_bytes: int
    queue: Queue
    sharded: bool
    hang_timeout_s: float | None
    requested: float
    """When the workers were first requested, in seconds since 1970."""

    def heartbeat(self, clock: Clock, world: World, start: str, first_step: int) -> AbstractContextManager[None]:
        if self.hang_timeout_s is None or not isinstance(self.job, TrainJob):
            return nullcontext()
        pulse = TrainingPulse(clock, first_step=first_step, timeout_s=self.hang_timeout_s)
        return heartbeat(self.queue, pulse, SpeedReader(clock), world, start=start)


def _work(config: dict[str, _Work]) -> None:
    """Run the job on one Ray Train worker."""
    work, job = config["work"], config["work"].job
    world = World.of(ray.train.torch.get_device(), sharded=work.sharded)
    with worker_display(work.queue, leads=world.leads) as display, collected(job.run, world) as name:
        restart = restart_times(job.run, display) if world.leads and isinstance(job, TrainJob) else None
        shares = Shares.of(job.plan, world_size=world.size, row_bytes=work.row_bytes)
        # Rank 0 decides for all: a checkpoint may turn out to be damaged, or a new one appear, between two looks.
        decided = [job.first_step(), secrets.randbits(62)] if world.leads else [0, 0]
        first_step, start = world.sum(torch.tensor(decided)).tolist()
        blocks = work.feed.blocks(shares, first_step, world.rank, start=start)
        if not isinstance(work.feed, MemoryFeed):
            blocks = _begun(blocks)
        if restart is not None:
            blocks, display = restart.timed(blocks), restart
        clock, origin = Clock(), Origin(restart.noticed if restart else work.requested, created_at())
        with work.heartbeat(clock, world, name, first_step):
            job.start(blocks, Session(world, first_step, display, _preemption, clock, origin))


def _begun(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same blocks: the first is already awaited while this process builds the model."""
    first = ThreadPoolExecutor(1).submit(next, blocks, None)

    def taken() -> Iterator[Block]:
        if (block := first.result()) is not None:
            yield block
            yield from blocks

    return taken()


def _preemption() -> Preemption:
    """Whether a node of this run is being drained, by its machine's owner or by the autoscaler."""
    return Preemption.NONE if ray.train.get_preemption_info() is None else Preemption.SAVE
