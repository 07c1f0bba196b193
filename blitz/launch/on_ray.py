"""A job on Ray: N Ray Train workers, fed by one stream through Ray Data."""

import signal
import tempfile
import threading
from dataclasses import dataclass

import ray
import ray.data
import ray.exceptions
import ray.train
import ray.train.torch
import torch.distributed
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from blitz.data.plan import Shares
from blitz.errors import RunFailed, UserError
from blitz.launch.cluster import connected
from blitz.launch.job import Datasets, Job, row_bytes_of
from blitz.launch.ray_stream import STREAM, RowStream, blocks_of
from blitz.launch.relay import relayed, shown
from blitz.launch.scale import Node, Scale, workers_for
from blitz.launch.storage_probe import check_every_node_sees
from blitz.training.world import World


def run_on_ray(job: Job, datasets: Datasets, scale: Scale) -> None:
    """Run a job on the cluster at RAY_ADDRESS, or on a local one that lives as long as the job.

    Raises:
        UserError: if the cluster does not answer, can never give what `scale` asks for, or has a node that does not
            see the run directory.
    """
    with connected():
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers = workers_for(scale, [Node(each.get("CPU", 0), each.get("GPU", 0)) for each in resources])
        check_every_node_sees(job.run)
        row_bytes = row_bytes_of(datasets)
        refs = {split: ray.put(dataset) for split, dataset in datasets.items()}
        stream = RowStream(job.plan, job.first_step, refs, row_bytes, task_cpus=workers.task_cpus)
        queue = Queue(actor_options={"num_cpus": 0})
        # Ray Data's own bars would be drawn over ours.
        ray.data.DataContext.get_current().enable_progress_bars = False
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
                    failure_config=ray.train.FailureConfig(max_failures=scale.max_failures),
                ),
            )
            with shown(queue, first_step=job.first_step(), total_steps=job.plan.total_steps):
                _fit(trainer)


def _fit(trainer: TorchTrainer) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if threading.current_thread() is threading.main_thread():
        # What `ray job stop` sends. Ray's own answer is to leave at once, which leaves an actor of Ray Train behind.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        trainer.fit()
    except SystemExit:
        # Ray Train's own answer to Ctrl-C, once it has stopped the workers.
        raise KeyboardInterrupt from None
    except ray.train.WorkerGroupError as error:
        failures = {rank: _original(failure) for rank, failure in sorted(error.worker_failures.items())}
        # The ranks that only lost their peers fail too; what they say hides the reason.
        for rank, failure in failures.items():
            if isinstance(failure, UserError):
                # Its own line: Ray Data adds advice on its settings below.
                raise UserError(str(failure).splitlines()[0]) from error
            if isinstance(failure, RunFailed):
                raise RunFailed(str(failure)) from error
            if isinstance(failure, ray.exceptions.RayActorError):
                raise RunFailed(f"a worker died (rank {rank} of {len(failures)}); the same command goes on") from error
        rank, failure = min(failures.items(), key=lambda each: (_lost_its_peers(each[1]), each[0]))
        raise RunFailed(f"{type(failure).__name__} in rank {rank}: {failure}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _lost_its_peers(failure: BaseException) -> bool:
    return isinstance(failure, torch.distributed.DistError) or "gloo" in str(failure) or "NCCL" in str(failure)


def _original(failure: Exception) -> BaseException:
    """What a worker raised, without what Ray wraps it in."""
    for name in ("_base_exc", "health_check_failure", "cause"):
        wrapped = getattr(failure, name, None)
        if isinstance(wrapped, Exception):
            return _original(wrapped)
    return failure


@dataclass(frozen=True)
class _Work:
    job: Job
    row_bytes: int
    queue: Queue


def _work(config: dict[str, _Work]) -> None:
    """What each Ray Train worker runs."""
    work = config["work"]
    world = World.of(ray.train.torch.get_device())
    shares = Shares.of(work.job.plan, world_size=world.size, row_bytes=work.row_bytes)
    first_step, blocks = blocks_of(ray.train.get_dataset_shard(STREAM), shares)
    with relayed(work.queue, leads=world.leads) as display:
        work.job.start(blocks, world=world, first_step=first_step, display=display)
