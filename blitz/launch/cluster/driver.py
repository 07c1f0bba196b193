"""Runs the driver of a job within the cluster: in this process, or through Ray Client on the head node.

Ray Train and Ray Data do not work through Ray Client, which knows tasks, actors and objects only.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import ray
import ray.exceptions

from blitz.errors import RunFailed, UserError, first_line
from blitz.launch.cluster.connection import on_the_drivers_node
from blitz.launch.cluster.ray_internals import through_client

T = TypeVar("T")
_SECONDS_TO_END = 60.0
"""For a run that is interrupted; at the end of this process Ray ends it in any case."""


def in_the_cluster(function: Callable[..., T], *args: Any) -> T:
    """What the function returns, in this process if it is one of the cluster, else in a task on the head node.

    The task is cancelled at Ctrl-C, and ends with this process.

    Raises:
        UserError: also if the head node cannot import what the function needs.
        RunFailed: also if the process of the task dies.
    """
    if not through_client():
        return function(*args)
    # A retry would restart a run whose error the user has to fix.
    task = ray.remote(num_cpus=0, max_retries=0)(function).options(scheduling_strategy=on_the_drivers_node())
    running = task.remote(*args)
    try:
        result: T = ray.get(running)
    except KeyboardInterrupt:
        ray.cancel(running)
        ray.wait([running], timeout=_SECONDS_TO_END)
        raise
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ImportError):
            raise UserError(f"the head node cannot run this job ({cause}); install blitz and the rest there") from error
        raise cause from None
    except ray.exceptions.RayError as error:
        died = f"the job's driver on the head node died ({first_line(error)}); the same call resumes it"
        raise RunFailed(died) from error
    return result
