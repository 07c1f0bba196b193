"""Work on many files by tasks on the nodes of a cluster."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
import ray.exceptions

from blitz.errors import require
from blitz.launch.cluster.autoscaler import grows

_TASK_CPUS = 0.25
"""Such work waits for files more than it computes."""


def map_on_ray(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """What `map` gives, on the cluster that this process is connected to."""
    task = ray.remote(num_cpus=_TASK_CPUS)(_call)
    cpus = ray.cluster_resources().get("CPU", 0)
    require(cpus >= _TASK_CPUS or grows(), "the cluster has no CPUs to look at files with; add a node that has")
    # Twice as many as can be worked on, so that none waits for another to be sent.
    most = max(1, int(2 * cpus / _TASK_CPUS))
    under_way: deque[Any] = deque()
    for item in items:
        under_way.append(task.remote(function, item))
        if len(under_way) >= most:
            yield _result(under_way)
    while under_way:
        yield _result(under_way)


def _result(under_way: deque[Any]) -> Any:
    try:
        return ray.get(under_way.popleft())
    except ray.exceptions.RayTaskError as error:
        # Ray's own text is the trace.
        raise error.cause from None


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
