"""The resources of a sweep's trials on a cluster, and how many run at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from blitz.errors import require
from blitz.launch.cluster.autoscaler import grows
from blitz.launch.cluster.connection import alive_nodes
from blitz.launch.cluster.storage_probe import check_every_node_sees
from blitz.launch.scale import Node, Scale, workers_for
from blitz.run_files.directory import RunDirectory

_DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}
"""Reserved by a trial whose workers reserve their own: next to nothing, because Ray Tune does not accept nothing."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class TrialResources:
    """What a trial reserves, and how many trials run at a time."""

    resources: dict[str, float]
    max_concurrent: int

    @property
    def use_gpu(self) -> bool:
        """Whether a trial has a GPU of its own."""
        return self.resources.get("GPU", 0) > 0


def resources_on_cluster(run: RunDirectory, scale: Scale, max_concurrent: int | None) -> TrialResources:
    """The resources of trials on the connected cluster, once all its nodes are known to see the sweep's directory.

    Raises:
        UserError: if a node does not see it, or if no trial ever fits.
    """
    check_every_node_sees(run)
    found = trial_resources(scale, alive_nodes(), grows=grows())
    return replace(found, max_concurrent=min(found.max_concurrent, max_concurrent or found.max_concurrent))


def trial_resources(scale: Scale, nodes: Sequence[Node], *, grows: bool = False) -> TrialResources:
    """Resources with which concurrent trials never wait for each other.

    Raises:
        UserError: if no trial ever fits.
    """
    if isinstance(scale.num_workers, int):
        return _on_workers(scale, nodes, grows=grows)
    cpus, gpus = scale.cpus_per_worker or 1.0, sum(node.gpus for node in nodes)
    require(scale.use_gpu != "yes" or gpus >= 1, "--scale.use-gpu yes: the cluster has no GPU; use auto or no")
    use_gpu = scale.use_gpu != "no" and gpus >= 1
    fits = [min(int(node.cpus / cpus + _ROUNDING), int(node.gpus) if use_gpu else 1 << 30) for node in nodes]
    require(
        sum(fits) > 0 or grows,
        f"no node of the cluster has {cpus:g} CPUs{' and a GPU' if use_gpu else ''} for a trial; ask for less with "
        "--scale.cpus-per-worker",
    )
    return TrialResources({"CPU": cpus, "GPU": float(use_gpu)}, max(1, sum(fits)))


def _on_workers(scale: Scale, nodes: Sequence[Node], *, grows: bool) -> TrialResources:
    workers = workers_for(scale, nodes, grows=grows)
    assert isinstance(workers.count, int)
    # A slot is a worker's CPUs and holds a worker or a task of Ray Data; each trial needs one slot for such a task.
    slots = sum(int(node.cpus / workers.cpus + _ROUNDING) for node in nodes)
    by_gpus = int(sum(node.gpus for node in nodes)) // workers.count if workers.gpus else slots
    return TrialResources(_DRIVER, max(1, min(slots // (workers.count + 1), by_gpus)))
