"""Explain in one line what ended a run on Ray."""

import re
from typing import Any

import ray.exceptions
import ray.train
import torch.distributed

from blitz.errors import RunFailed, UserError, first_line
from blitz.launch.cluster.ray_internals import wrapped_exception
from blitz.launch.cluster.worker_log import newest_log
from blitz.run_files.directory import RunDirectory
from blitz.training.evaluation import ResultNotWritten

DEATHS = (ray.exceptions.OutOfMemoryError, ray.exceptions.RayActorError)
"""What Ray raises where a process was killed or died, also that of Ray Train's own controller."""

_MORE_MEMORY = "take larger nodes, fewer workers on each with a larger --scale.cpus-per-worker, or --micro-batch-size"


class StopAtUserErrors(ray.train.UserCallback):
    """Ends a run at once at an error that its user has to mend: a retry would only repeat it."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise the error: Ray Train treats it as a failure of its controller, which it does not retry."""
        for failure in map(_original, worker_exceptions.values()):
            if isinstance(failure, (UserError, RunFailed)):
                raise failure


def explain_failure(error: Exception, run: RunDirectory) -> Exception:
    """What to raise for an error of Ray Train: the user's mistake, or which rank failed first and where its log is."""
    if isinstance(error, DEATHS):
        return RunFailed(_explain(error, "the run's controller"))
    if isinstance(error, ray.train.ControllerError):
        failure = _original(error.controller_failure)
        if isinstance(failure, ResultNotWritten):
            return failure
        if isinstance(failure, UserError):
            # The first line only: Ray Data appends advice on its settings.
            return UserError(first_line(failure))
        if isinstance(failure, RunFailed):
            return RunFailed(str(failure))
        return RunFailed(f"Ray Train failed ({first_line(failure)}); the same command resumes it")
    assert isinstance(error, ray.train.WorkerGroupError)
    failures = {rank: _original(failure) for rank, failure in error.worker_failures.items()}
    # Ranks that only lost their peers fail too, and their errors hide the cause.
    rank, failure = min(failures.items(), key=lambda each: (_distance_from_cause(each[1]), each[0]))
    failed = RunFailed(_explain(failure, f"rank {rank}"))
    if log := newest_log(run, rank):
        failed.add_note(f"the rank's log is {log}")
    return failed


def _explain(failure: BaseException, rank: str) -> str:
    if isinstance(failure, ray.exceptions.OutOfMemoryError):
        node = re.search(r"IP: ([^,)]+)", str(failure))
        used = re.search(r"was ([\d.]+GB used / [\d.]+GB)", str(failure))
        return (
            f"out of memory: Ray ended {rank} because its node {node[1] if node else ''} had "
            f"{used[1] if used else 'nearly all of its memory used'}; {_MORE_MEMORY}; the same command resumes the run"
        )
    if isinstance(failure, ray.exceptions.RayActorError):
        return _explain_death(str(failure), rank)
    # The first line only: Ray Data appends advice on its settings.
    return f"{type(failure).__name__} in {rank}: {first_line(failure)}"


def _explain_death(failure: str, rank: str) -> str:
    ip = re.search(r"^\s*ip: (\S+)", failure, re.MULTILINE)
    node = ip[1] if ip else "its node"
    if "its node has died" in failure:
        return f"a node was lost ({node}, with {rank}); the same command resumes the run"
    return (
        f"a worker died ({rank}, on {node}); the same command resumes the run; if `dmesg` there says that its memory "
        f"ran out, {_MORE_MEMORY}"
    )


def _distance_from_cause(failure: BaseException) -> int:
    """0 for the death of a process, 1 for an error of the rank itself, 2 for an error caused by another rank."""
    if isinstance(failure, DEATHS):
        return 0
    lost_a_peer = isinstance(failure, torch.distributed.DistError) or "gloo" in str(failure) or "NCCL" in str(failure)
    return 2 if lost_a_peer else 1


def _original(failure: Exception) -> BaseException:
    """What a worker raised, without the exceptions of Ray's around it."""
    wrapped = wrapped_exception(failure)
    return failure if wrapped is None else _original(wrapped)
