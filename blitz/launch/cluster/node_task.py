"""Call a function on one node of a cluster, as a task that reserves no resources."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_SECONDS_BETWEEN_RETRIES = 0.1


def call_on_node(node_id: str, function: Callable[..., Any], *args: Any, seconds: float) -> Any:
    """The function's result on that node; its module should not import torch, which takes seconds.

    Raises:
        ray.exceptions.GetTimeoutError: if it has not answered within `seconds`.
        ray.exceptions.TaskUnschedulableError: if the node has left the cluster.
        ray.exceptions.RayError: if it cannot run the function.
    """
    end = time.monotonic() + seconds
    on_the_node = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(function).options(scheduling_strategy=on_the_node)
    while True:
        try:
            return ray.get(task.remote(*args), timeout=max(0.0, end - time.monotonic()))
        except TaskUnschedulableError:
            # Not all of Ray knows a node yet that has only just joined.
            is_alive = any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())
            if not is_alive or time.monotonic() > end:
                raise
            time.sleep(_SECONDS_BETWEEN_RETRIES)


def stack_group() -> str:
    """The name by which the processes of this Ray job can dump their stacks."""
    context = ray.get_runtime_context()
    return f"{context.gcs_address}-{context.get_job_id()}"
