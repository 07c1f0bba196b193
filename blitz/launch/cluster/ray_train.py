"""A job on Ray: N Ray Train workers, fed by one stream through Ray Data."""

import os
import signal
import tempfile
import threading
from dataclasses import dataclass

import ray
import ray.data
import ray.train
import ray.train.torch
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from blitz.data.plan import Datasets, Shares
from blitz.launch.cluster.autoscaler import grows
from blitz.launch.cluster.connection import connected
from blitz.launch.cluster.failures import EndAtMistakes, told
from blitz.launch.cluster.ray_stream import STREAM, RowStream, blocks_of
from blitz.launch.cluster.storage_probe import check_every_node_sees
from blitz.launch.cluster.worker_display import relayed, shown
from blitz.launch.cluster.worker_log import collected
from blitz.launch.job import Job, row_bytes_of
from blitz.launch.scale import Node, Scale, told_of, workers_for
from blitz.runs.directory import RunDirectory
from blitz.training.checkpoint_triggers import Notice
from blitz.training.world import World

_SETTINGS = {
    # Else Ray Train's workers print everything twice.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Between looks at the workers, the last of which sees that they are done or have failed; 2 by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""Of Ray Train, which takes them from the environment alone."""
_ELASTIC_SETTINGS = {
    # For workers to find room, before their number is decided anew, because for up to 20 seconds Ray still counts on a
    # node that is lost; 60 by default.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
}


def run_on_ray(job: Job, datasets: Datasets, scale: Scale) -> None:
    """Run a job on the cluster at RAY_ADDRESS, or on a local one that lives as long as the job.

    Raises:
        UserError: if the cluster does not answer, can never give what `scale` asks for, or has a node that does not
            see the run directory.
    """
    with connected():
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [Node(each.get("CPU", 0), each.get("GPU", 0)) for each in resources]
        workers = workers_for(scale, nodes, grows=grows())
        if workers.room_for is not None:
            print(f"waits for the cluster to grow: {told_of(workers)}", flush=True)
        check_every_node_sees(job.run)
        row_bytes = row_bytes_of(datasets)
        refs = {split: ray.put(dataset) for split, dataset in datasets.items()}
        stream = RowStream(job.plan, job.first_step, refs, row_bytes, task_cpus=workers.task_cpus)
        # On the driver's own node, and anew on another one where that is lost: every restart of the workers would fail
        # without it. Not by all means there: a cluster that has only just got the node does not know it yet.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        lasting = {"max_restarts": -1, "max_task_retries": -1}
        queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here, **lasting})
        # Ray Data's own bars would be drawn over ours.
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name, value in (_SETTINGS if scale.max_workers is None else {**_SETTINGS, **_ELASTIC_SETTINGS}).items():
            os.environ.setdefault(name, value)
        with tempfile.TemporaryDirectory(prefix="blitz-") as scratch:
            trainer = TorchTrainer(
                _work,
                train_loop_config={"work": _Work(job, row_bytes, queue)},
                scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]
                    num_workers=workers.count,  # type: ignore[arg-type]
                    use_gpu=workers.gpus > 0,
                    resources_per_worker={"CPU": workers.cpus, "GPU": workers.gpus},
                    elastic_resize_monitor_interval_s=scale.resize_every_s,
                ),
                # Only a name: `stream` makes the data set once the number of workers is known.
                datasets={STREAM: ray.data.from_items([])},
                dataset_config=stream,
                run_config=ray.train.RunConfig(
                    storage_path=scratch,
                    # A machine that is taken away is no failure, and says nothing of whether the run can end.
                    failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]
                        max_failures=scale.max_failures, max_preemption_failures=-1
                    ),
                    callbacks=[EndAtMistakes()],  # type: ignore[list-item]
                ),
            )
            with shown(queue, first_step=job.first_step(), total_steps=job.plan.total_steps):
                _fit(trainer, job.run)


def _fit(trainer: TorchTrainer, run: RunDirectory) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if threading.current_thread() is threading.main_thread():
        # What `ray job stop` sends. Ray's own answer is to leave at once, which leaves an actor of Ray Train behind.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        trainer.fit()
    except SystemExit:
        # Ray Train's own answer to Ctrl-C, once it has stopped the workers.
        raise KeyboardInterrupt from None
    except ray.train.TrainingFailedError as error:
        raise told(error, run) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(frozen=True)
class _Work:
    job: Job
    row_bytes: int
    queue: Queue


def _work(config: dict[str, _Work]) -> None:
    """What each Ray Train worker runs."""
    work = config["work"]
    world = World.of(ray.train.torch.get_device())
    with relayed(work.queue, leads=world.leads) as display, collected(work.job.run, world):
        shares = Shares.of(work.job.plan, world_size=world.size, row_bytes=work.row_bytes)
        first_step, blocks = blocks_of(ray.train.get_dataset_shard(STREAM), shares)
        work.job.start(blocks, world=world, first_step=first_step, display=display, board=_board)


def _board() -> Notice:
    """Whether a node of this run is about to be taken away: its machine's owner or the autoscaler drains it."""
    return Notice.NONE if ray.train.get_preemption_info() is None else Notice.SAVE
