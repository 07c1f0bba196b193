"""A question to one node of a cluster, which answers by a task that reserves nothing."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_SECONDS_TO_ASK_AGAIN = 0.1


def asked(node_id: str, function: Callable[..., Any], *args: Any, seconds: float) -> Any:
    """What a function returns on that node; one from a module that does not import torch, which takes seconds.

    Raises:
        ray.exceptions.GetTimeoutError: if it has not answered in so many `seconds`.
        ray.exceptions.TaskUnschedulableError: if the node is gone.
        ray.exceptions.RayError: if it cannot run the function.
    """
    end = time.monotonic() + seconds
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(function).options(scheduling_strategy=there)
    while True:
        try:
            return ray.get(task.remote(*args), timeout=max(0.0, end - time.monotonic()))
        except TaskUnschedulableError:
            # One that has only just come is not known to all of Ray yet.
            is_alive = any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())
            if not is_alive or time.monotonic() > end:
                raise
            time.sleep(_SECONDS_TO_ASK_AGAIN)
