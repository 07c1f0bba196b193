"""Map a function over many files by tasks on the nodes of a cluster."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
import ray.exceptions

from blitz.errors import require
from blitz.launch.cluster.autoscaler import grows

_TASK_CPUS = 0.25
"""Reserved by a task, which waits for files more than it computes."""


def map_on_ray(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Like `map`, but on the connected cluster; results are in the order of the items."""
    task = ray.remote(num_cpus=_TASK_CPUS)(_call)
    cpus = ray.cluster_resources().get("CPU", 0)
    require(cpus >= _TASK_CPUS or grows(), "the cluster has no CPUs to look at files with; add a node that has")
    # Twice as many as run at a time, so that a free CPU never waits for the driver to submit the next.
    most = max(1, int(2 * cpus / _TASK_CPUS))
    submitted: deque[Any] = deque()
    for item in items:
        submitted.append(task.remote(function, item))
        if len(submitted) >= most:
            yield _result(submitted)
    while submitted:
        yield _result(submitted)


def _result(submitted: deque[Any]) -> Any:
    try:
        return ray.get(submitted.popleft())
    except ray.exceptions.RayTaskError as error:
        # The message of Ray's error is a whole traceback.
        raise error.cause from None


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
