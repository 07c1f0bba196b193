"""Where a run happens, as flags."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from blitz.errors import UserError, require

FeedName = Literal["auto", "memory", "stream", "tasks"]

_MIN_CPUS_PER_WORKER = 0.25
_ROUNDING = 1e-6
_ELASTIC_CPUS, _ELASTIC_TASK_CPUS = 0.9, 0.1


@dataclass(frozen=True)
class Scale:
    """Where a run happens; nothing here changes what is learned."""

    num_workers: Literal["auto"] | int = "auto"
    """0 runs in this process, without Ray; N runs N Ray Train workers, on the cluster at RAY_ADDRESS or a local one.
    auto is 0 where RAY_ADDRESS is not set; on a cluster it is one worker a GPU, or without GPUs as many as leave a CPU
    for Ray Data."""
    use_gpu: Literal["auto", "yes", "no"] = "auto"
    """auto uses GPUs where there are some."""
    cpus_per_worker: float | None = None
    """CPUs that each Ray Train worker reserves; by default one, or less where there are fewer, but 1/4 at least."""
    min_workers: int | None = None
    """With --scale.max-workers: the fewest workers to run with; 1 by default."""
    max_workers: int | None = None
    """On Ray: as many workers as there is room for, up to this many. Nodes that join or leave change their number, from
    the newest checkpoint on and at the same global batch."""
    resize_every_s: float = 60.0
    """With --scale.max-workers: seconds between checks for room for more workers."""
    shard: Literal["no", "full"] = "no"
    """On several workers: full divides parameters, gradients and the optimizer's state over them (FSDP2), for models
    that are larger than one GPU. The rows and the losses are the same."""
    feed: FeedName = "auto"
    """On Ray: how workers get their rows. memory puts them into the object store once, and each worker slices its own;
    stream fetches them on the cluster's CPUs through Ray Data, tasks by plain tasks of each worker. auto is memory for
    rows that lie in arrays, and stream for all others, such as those of a CSV."""
    max_failures: Annotated[int, tyro.conf.arg(aliases=("--max-failures",))] = 0
    """On Ray: restart from the newest checkpoint after a failure, at most this many times."""
    hang_timeout_s: float | None = 60.0
    """Report a run that makes no step within so many seconds, or three times the longest step so far if that is more,
    with the stacks of all its processes; on Ray it is then restarted, as after a failure. Start-up, evaluation and
    checkpoints may take ten times as long. None waits for ever."""

    def __post_init__(self) -> None:
        count, cpus = self.num_workers, self.cpus_per_worker
        require(count == "auto" or count >= 0, f"--scale.num-workers is {count}; it must be auto, 0 or more")
        require(self.max_failures >= 0, f"--scale.max-failures is {self.max_failures}; it must be 0 or more")
        require(cpus is None or cpus > 0, f"--scale.cpus-per-worker is {cpus}; it must be above 0")
        least, most = self.min_workers, self.max_workers
        require(least is None or most is not None, "--scale.min-workers needs --scale.max-workers beside it")
        require(
            most is None or 1 <= (least or 1) <= most,
            f"--scale.min-workers is {least or 1} and --scale.max-workers {most}; they must be in 1 ≤ min ≤ max",
        )
        require(
            most is None or count == "auto",
            f"--scale.num-workers is {count}, and --scale.max-workers lets their number change; give one of them",
        )
        hang = self.hang_timeout_s
        require(hang is None or hang >= 1, f"--scale.hang-timeout-s is {hang}; it must be at least 1, or None")
        require(self.resize_every_s > 0, f"--scale.resize-every-s is {self.resize_every_s}; it must be above 0")


@dataclass(frozen=True)
class Node:
    """The resources of one node of a cluster."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Workers:
    """The workers that a scale means on a given cluster."""

    count: int | tuple[int, int]
    """A number, or the minimum and maximum of an elastic run."""
    cpus: float
    """Reserved by each worker."""
    task_cpus: float
    """CPUs reserved by each task of Ray Data."""
    gpus: int
    """Reserved by each worker."""
    room_for: int | None = None
    """If the cluster has to grow first: how many workers fit now; else None."""


def workers_for(scale: Scale, nodes: Sequence[Node], *, grows: bool = False) -> Workers:
    """The workers of a run on a cluster, sized so that some node has room for a task of Ray Data as well.

    A cluster that `grows` by an autoscaler may come to offer more than its nodes do now.

    Raises:
        UserError: if the cluster can never give them.
    """
    all_cpus, all_gpus = sum(node.cpus for node in nodes), int(sum(node.gpus for node in nodes))
    asks_for_gpu = scale.use_gpu == "yes"
    require(not asks_for_gpu or all_gpus > 0 or grows, "--scale.use-gpu yes: the cluster has no GPU; use auto or no")
    use_gpu = asks_for_gpu or (scale.use_gpu == "auto" and all_gpus > 0)
    if scale.max_workers is not None:
        return _elastic(scale, nodes, use_gpu=use_gpu, grows=grows)
    if scale.num_workers == "auto":
        count = max(1, all_gpus if use_gpu else _most(nodes, scale.cpus_per_worker or 1.0, use_gpu=False))
    else:
        count = scale.num_workers
    for cpus in [scale.cpus_per_worker] if scale.cpus_per_worker else _sizes(nodes, count):
        if count <= _most(nodes, cpus, use_gpu=use_gpu):
            return Workers(count, cpus, min(1.0, cpus), int(use_gpu))
    if grows:
        cpus = scale.cpus_per_worker or 1.0
        return Workers(count, cpus, min(1.0, cpus), int(use_gpu), room_for=_most(nodes, cpus, use_gpu=use_gpu))
    least = scale.cpus_per_worker or _MIN_CPUS_PER_WORKER
    most = _most(nodes, least, use_gpu=use_gpu)
    has = f"{all_gpus} GPUs, one a worker, and {all_cpus:g} CPUs" if use_gpu else f"{all_cpus:g} CPUs"
    raise UserError(
        f"--scale.num-workers is {count}, and the cluster has {has}: with {least:g} CPUs a worker and room for "
        f"Ray Data on one of {len(nodes)} nodes it can give {most}; ask for fewer workers"
    )


def explain_wait(workers: Workers) -> str:
    """Why a run waits for the cluster to grow."""
    count = workers.count if isinstance(workers.count, int) else workers.count[0]
    gpu = " and a GPU" if workers.gpus else ""
    return (
        f"it has room for {workers.room_for} of {count} workers of {workers.cpus:g} CPUs{gpu}; `ray status` says what "
        "its autoscaler makes of that"
    )


def _elastic(scale: Scale, nodes: Sequence[Node], *, use_gpu: bool, grows: bool) -> Workers:
    assert scale.max_workers is not None
    least, cpus = scale.min_workers or 1, scale.cpus_per_worker or _ELASTIC_CPUS
    # Nodes may come and go, so every one keeps room for Ray Data: a part of each CPU.
    most = _most(nodes, cpus, use_gpu=use_gpu, task=_ELASTIC_TASK_CPUS)
    require(
        least <= most or grows,
        f"--scale.min-workers is {least}, and the cluster now has room for {most} of {cpus:g} CPUs"
        f"{' and a GPU' if use_gpu else ''}; ask for fewer",
    )
    room_for = most if most < least else None
    return Workers((least, scale.max_workers), cpus, _ELASTIC_TASK_CPUS, int(use_gpu), room_for=room_for)


def _most(nodes: Sequence[Node], cpus: float, *, use_gpu: bool, task: float | None = None) -> int:
    """How many workers of `cpus` each fit beside one task of Ray Data, on the node where that costs least."""

    def capacity(node: Node, *, reserved: float = 0.0) -> int:
        by_cpus = int((node.cpus - reserved) / cpus + _ROUNDING)
        return min(by_cpus, int(node.gpus)) if use_gpu else by_cpus

    task = min(1.0, cpus) if task is None else task
    lost = [capacity(node) - capacity(node, reserved=task) for node in nodes if node.cpus >= task]
    return sum(capacity(node) for node in nodes) - min(lost) if lost else 0


def _sizes(nodes: Sequence[Node], count: int) -> list[float]:
    """Candidate CPUs per worker, largest first: one, or an equal part of a node, in Ray's steps of 1e-4."""
    parts = {math.floor(node.cpus / part * 1e4) / 1e4 for node in nodes for part in range(1, count + 2)}
    return sorted((part for part in {1.0, *parts} if _MIN_CPUS_PER_WORKER <= part <= 1), reverse=True)
