"""What ended a run on Ray, told in one line."""

import re
from typing import Any

import ray.exceptions
import ray.train
import torch.distributed

from blitz.errors import RunFailed, UserError
from blitz.launch.worker_log import newest_log
from blitz.training.evaluation import ResultNotWritten
from blitz.training.run_directory import RunDirectory

_MORE_MEMORY = "take larger nodes, fewer workers on each with a larger --scale.cpus-per-worker, or --micro-batch-size"


class EndAtMistakes(ray.train.UserCallback):
    """Ends a run at once where a worker says what its user has to mend: another try would only say it again."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Ray Train takes what is raised here for a failure of its own controller, which it does not try again."""
        for failure in map(_original, worker_exceptions.values()):
            if isinstance(failure, (UserError, RunFailed)):
                raise failure


def told(error: Exception, run: RunDirectory) -> Exception:
    """What Ray Train raises, in one line: the mistake of the user, or which rank failed first, and where its log is."""
    if isinstance(error, ray.train.ControllerError):
        failure = _original(error.controller_failure)
        if isinstance(failure, ResultNotWritten):
            return failure
        if isinstance(failure, UserError):
            # Its own line: Ray Data adds advice on its settings below.
            return UserError(str(failure).splitlines()[0])
        if isinstance(failure, RunFailed):
            return RunFailed(str(failure))
        return RunFailed(f"Ray Train failed ({_first_line(failure)}); the same command goes on")
    assert isinstance(error, ray.train.WorkerGroupError)
    failures = {rank: _original(failure) for rank, failure in error.worker_failures.items()}
    # The ranks that only lost their peers fail too; what they say hides the reason.
    rank, failure = min(failures.items(), key=lambda each: (_rank_of(each[1]), each[0]))
    failed = RunFailed(_what(failure, f"rank {rank}"))
    if log := newest_log(run, rank):
        failed.add_note(f"the rank's log is {log}")
    return failed


def _what(failure: BaseException, rank: str) -> str:
    if isinstance(failure, ray.exceptions.OutOfMemoryError):
        node = re.search(r"IP: ([^,)]+)", str(failure))
        used = re.search(r"was ([\d.]+GB used / [\d.]+GB)", str(failure))
        return (
            f"out of memory: Ray ended {rank} because its node {node[1] if node else ''} had "
            f"{used[1] if used else 'nearly all of its memory used'}; {_MORE_MEMORY}; the same command goes on"
        )
    if isinstance(failure, ray.exceptions.RayActorError):
        return _death(str(failure), rank)
    return f"{type(failure).__name__} in {rank}: {failure}"


def _death(failure: str, rank: str) -> str:
    ip = re.search(r"^\s*ip: (\S+)", failure, re.MULTILINE)
    node = ip[1] if ip else "its node"
    if "its node has died" in failure:
        return f"a node was lost ({node}, with {rank}); the same command goes on"
    return (
        f"a worker died ({rank}, on {node}); the same command goes on; if `dmesg` there says that its memory ran out, "
        f"{_MORE_MEMORY}"
    )


def _rank_of(failure: BaseException) -> int:
    """How much a failure says of the reason: the lower, the more."""
    if isinstance(failure, (ray.exceptions.OutOfMemoryError, ray.exceptions.RayActorError)):
        return 0
    lost_its_peers = (
        isinstance(failure, torch.distributed.DistError) or "gloo" in str(failure) or "NCCL" in str(failure)
    )
    return 2 if lost_its_peers else 1


def _first_line(failure: BaseException) -> str:
    return (str(failure).splitlines() or [type(failure).__name__])[0]


def _original(failure: Exception) -> BaseException:
    """What a worker raised, without what Ray wraps it in."""
    for name in ("_base_exc", "health_check_failure", "cause"):
        wrapped = getattr(failure, name, None)
        if isinstance(wrapped, Exception):
            return _original(wrapped)
    return failure
