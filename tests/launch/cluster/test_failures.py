"""What is reported of a run that failed on Ray, from what Ray raises."""

import re
from pathlib import Path

import pytest
import ray.exceptions
import ray.train
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from blitz.errors import RunFailed, UserError
from blitz.launch.cluster.failures import StopAtUserErrors, explain_failure
from blitz.run_files.directory import RunDirectory

# The start of what Ray 2.60 says.
OUT_OF_MEMORY = ray.exceptions.OutOfMemoryError(
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2, ID: 66e982a7) "
    "was 4.76GB used / 23.54GB limit (0.202406)\nOOM kill reason: Memory usage 4934447104B exceeded threshold"
)
DIED = ray.exceptions.RayActorError(
    "66e9", "The actor died unexpectedly.\n\tclass_name: RayTrainWorker\n\tip: 10.0.0.2\n"
)
LOST_NODE = ray.exceptions.RayActorError(
    "66e9", "The actor died.\n\tip: 10.0.0.3\nThe actor died because its node has died."
)
LOST_ITS_PEERS = RuntimeError("[gloo/transport/tcp/pair.cc:536] Connection closed by peer [10.0.0.2]:41")


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (
            OUT_OF_MEMORY,
            "^out of memory: Ray ended rank 1 because its node 10.0.0.2 had 4.76GB used / 23.54GB; take larger",
        ),
        (DIED, r"^a worker died \(rank 1, on 10.0.0.2\); the same command resumes the run; if `dmesg` there says"),
        (LOST_NODE, r"^a node was lost \(10.0.0.3, with rank 1\); the same command resumes the run$"),
        (KeyError("age"), "^KeyError in rank 1: 'age'$"),
    ],
)
def test_the_rank_that_failed_first_is_reported_and_its_log_named(
    failure: Exception, says: str, tmp_path: Path
) -> None:
    run = RunDirectory.of(str(tmp_path))
    for name in (
        "2026-01-01T00-00-00Z-rank-1.log",
        "2026-01-02T00-00-00Z-rank-0.log",
        "2026-01-02T00-00-00Z-rank-1.log",
    ):
        run.write(f"logs/{name}", b"")
    dead = WorkerHealthCheckFailedError("", failure=failure)
    error = explain_failure(ray.train.WorkerGroupError("", {0: LOST_ITS_PEERS, 1: dead}), run)
    assert isinstance(error, RunFailed)
    assert re.match(says, str(error))
    assert error.__notes__ == [f"the rank's log is {tmp_path}/logs/2026-01-02T00-00-00Z-rank-1.log"]


@pytest.mark.parametrize(
    ("death", "says"),
    [
        (OUT_OF_MEMORY, "^out of memory: Ray ended the run's controller because its node 10.0.0.2 had 4.76GB"),
        (DIED, r"^a worker died \(the run's controller, on 10.0.0.2\); the same command resumes the run"),
    ],
)
def test_the_death_of_ray_trains_controller_is_one_line_too(death: Exception, says: str, tmp_path: Path) -> None:
    error = explain_failure(death, RunDirectory.of(str(tmp_path)))
    assert isinstance(error, RunFailed)
    assert re.match(says, str(error))
    assert "\n" not in str(error)


@pytest.mark.parametrize("mistake", [UserError("--data.root: nothing there"), RunFailed("the training loss is nan")])
def test_a_mistake_ends_the_run_whatever_else_failed(mistake: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(mistake)) as raised:
        StopAtUserErrors().after_exception(
            None, {0: LOST_ITS_PEERS, 1: WorkerHealthCheckFailedError("", failure=mistake)}
        )
    error = explain_failure(ray.train.ControllerError(raised.value), RunDirectory.of(str(tmp_path)))
    assert (type(error), str(error)) == (type(mistake), str(mistake))


def test_other_failures_are_left_to_ray() -> None:
    StopAtUserErrors().after_exception(None, {0: LOST_ITS_PEERS, 1: KeyError("age")})
