"""Where a run happens, as flags."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro

from blitz.errors import UserError, require
from blitz.launch.address import check_address
from blitz.launch.doctor.machine import open_files, open_files_limit

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
    """With --scale.max-workers: go on with so few where there are no more; 1 by default."""
    max_workers: int | None = None
    """On Ray: as many workers as there is room for, up to this many. Nodes that join or leave change their number, from
    the newest checkpoint on and at the same global batch."""
    resize_every_s: float = 60.0
    """With --scale.max-workers: seconds between looks for room for more workers."""
    max_failures: Annotated[int, tyro.conf.arg(aliases=("--max-failures",))] = 0
    """On Ray: restart from the newest checkpoint after a failure, so many times."""

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
        require(self.resize_every_s > 0, f"--scale.resize-every-s is {self.resize_every_s}; it must be above 0")

    def check(self) -> None:
        """Refuse what this machine can never give, before anything is started; a cluster is asked once it is there.

        Raises:
            UserError: if it cannot.
        """
        address = os.environ.get("RAY_ADDRESS")
        if self.in_process:
            found = self.use_gpu != "yes" or torch.cuda.is_available()
            require(found, "--scale.use-gpu yes: torch finds no GPU here; use auto or no")
            return
        files = open_files(open_files_limit())
        require(files.level != "error", f"open files: {files.text}")
        if address:
            check_address(address)
        else:
            workers_for(self, [Node(os.cpu_count() or 1, torch.cuda.device_count())])

    @property
    def in_process(self) -> bool:
        """Whether the run happens in this process."""
        # A submitted Ray job finds RAY_ADDRESS set too.
        elastic = self.max_workers is not None
        return self.num_workers == 0 or (
            self.num_workers == "auto" and not elastic and not os.environ.get("RAY_ADDRESS")
        )


@dataclass(frozen=True)
class Node:
    """What one node of a cluster has."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Workers:
    """What a scale comes to on a given cluster."""

    count: int | tuple[int, int]
    """Or the fewest and the most, between which the cluster decides."""
    cpus: float
    """That each worker reserves."""
    task_cpus: float
    """That each task of Ray Data reserves."""
    gpus: int
    """Of each worker."""
    room_for: int | None = None
    """Where the cluster is still to grow: how many it has room for now."""


def workers_for(scale: Scale, nodes: Sequence[Node], *, grows: bool = False) -> Workers:
    """The workers of a run on a cluster, such that one more of their size is left for Ray Data on some node.

    One that `grows` by an autoscaler may come to give more than its nodes of now can.

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


def told_of(workers: Workers) -> str:
    """Why a run on a cluster that grows has to wait."""
    count = workers.count if isinstance(workers.count, int) else workers.count[0]
    gpu = " and a GPU" if workers.gpus else ""
    return (
        f"it has room for {workers.room_for} of {count} workers of {workers.cpus:g} CPUs{gpu}; `ray status` says what "
        "its autoscaler makes of that"
    )


def _elastic(scale: Scale, nodes: Sequence[Node], *, use_gpu: bool, grows: bool) -> Workers:
    assert scale.max_workers is not None
    least, cpus = scale.min_workers or 1, scale.cpus_per_worker or _ELASTIC_CPUS
    # Nodes may come and go, so room for Ray Data must be left on every one: a bit of each CPU.
    most = _most(nodes, cpus, use_gpu=use_gpu, task=_ELASTIC_TASK_CPUS)
    require(
        least <= most or grows,
        f"--scale.min-workers is {least}, and the cluster now has room for {most} of {cpus:g} CPUs"
        f"{' and a GPU' if use_gpu else ''}; ask for fewer",
    )
    room_for = most if most < least else None
    return Workers((least, scale.max_workers), cpus, _ELASTIC_TASK_CPUS, int(use_gpu), room_for=room_for)


def _most(nodes: Sequence[Node], cpus: float, *, use_gpu: bool, task: float | None = None) -> int:
    """How many workers of so many CPUs fit, node by node, beside a task of Ray Data on the node that suits it best."""

    def places(node: Node, *, reserved: float = 0.0) -> int:
        by_cpus = int((node.cpus - reserved) / cpus + _ROUNDING)
        return min(by_cpus, int(node.gpus)) if use_gpu else by_cpus

    task = min(1.0, cpus) if task is None else task
    given_up = [places(node) - places(node, reserved=task) for node in nodes if node.cpus >= task]
    return sum(places(node) for node in nodes) - min(given_up) if given_up else 0


def _sizes(nodes: Sequence[Node], count: int) -> list[float]:
    """CPUs a worker to try, largest first: one, or equal parts of a node, in the steps that Ray counts in."""
    parts = {math.floor(node.cpus / part * 1e4) / 1e4 for node in nodes for part in range(1, count + 2)}
    return sorted((part for part in {1.0, *parts} if _MIN_CPUS_PER_WORKER <= part <= 1), reverse=True)
