import threading
from pathlib import Path

import pytest
import torch

from blitz.errors import UserError
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from blitz.training.checkpoint_writer import CheckpointWriter
from tests.object_store import Line, uri_of


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"a": torch.full((4,), float(step))}, {}, {"step": step, "best": None})


@pytest.fixture(params=["disk", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    storage = str(tmp_path) if request.param == "disk" else uri_of(request.getfixturevalue("s3_port"), tmp_path.name)
    run = RunDirectory.of(storage, "run")
    run.probe()
    return run


def test_the_newest_and_the_best_are_kept(run: RunDirectory) -> None:
    with CheckpointWriter(run, keep=2) as writer:
        for step in (1, 2, 3, 4, 5):
            writer.save(checkpoint(step), best=2 if step > 1 else None)
    assert run.checkpoint_steps() == [2, 4, 5]


def test_tensors_may_change_as_soon_as_save_returns(run: RunDirectory) -> None:
    weight = torch.zeros(1_000_000)
    with CheckpointWriter(run, keep=2) as writer:
        writer.save(Checkpoint(1, {"a": weight}, {"exp_avg/a": weight}, {}), best=None)
        weight.add_(1)
    loaded = Checkpoint.load(run, 1)
    assert not loaded.weights["a"].any()
    assert not loaded.optimizer["exp_avg/a"].any()


@pytest.mark.parametrize("ends_well", [True, False])
def test_no_line_of_metrics_is_lost_also_where_an_exception_ends_the_run(run: RunDirectory, ends_well: bool) -> None:
    class Interruption(Exception):
        pass

    try:
        with CheckpointWriter(run, keep=2) as writer:
            writer.begin(0)
            writer.add_metrics({"step": 1})
            writer.add_metrics({"step": 2})
            writer.save(checkpoint(2), best=None)
            writer.wait()
            assert [line["step"] for line in run.metrics()] == [1, 2]
            writer.add_metrics({"step": 3})
            if not ends_well:
                raise Interruption
    except Interruption:
        pass
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]


def test_metrics_reach_the_storage_between_checkpoints(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blitz.training.checkpoint_writer._SECONDS_BETWEEN_METRICS", 0.0)
    with CheckpointWriter(run, keep=2) as writer:
        writer.begin(0)
        writer.add_metrics({"step": 1})
        writer.wait()
        assert run.metrics() == [{"step": 1}]


def test_save_does_not_wait_for_the_storage_but_a_second_one_waits_for_the_first(s3_port: int, tmp_path: Path) -> None:
    with Line(s3_port) as line:
        run = RunDirectory.of(uri_of(line.port, tmp_path.name))
        with CheckpointWriter(run, keep=2) as writer:
            released = threading.Event()
            line.when("optimizer.safetensors", lambda: released.wait(20))
            writer.save(checkpoint(3), best=None)
            # Another line: this one is released.
            assert RunDirectory.of(uri_of(s3_port, tmp_path.name)).checkpoint_steps() == []
            released.set()
            writer.save(checkpoint(6), best=None)
            assert 3 in run.checkpoint_steps()


def test_what_cannot_be_written_is_raised_by_the_next_save(run: RunDirectory) -> None:
    broken = RunDirectory.of(broken_storage(run))
    with CheckpointWriter(broken, keep=2) as writer:
        writer.save(checkpoint(3), best=None)
        with pytest.raises(UserError, match=r"--storage: .* cannot be written"):
            writer.save(checkpoint(6), best=None)


def test_what_cannot_be_written_is_raised_at_the_end_but_does_not_hide_what_ended_the_run(run: RunDirectory) -> None:
    broken = RunDirectory.of(broken_storage(run))
    with pytest.raises(UserError, match=r"--storage: .* cannot be written"), CheckpointWriter(broken, keep=2) as writer:
        writer.save(checkpoint(3), best=None)
    with pytest.raises(ZeroDivisionError) as ended:
        save_and_divide_by_zero(broken)
    assert "cannot be written" in ended.value.__notes__[0]


def save_and_divide_by_zero(run: RunDirectory) -> None:
    with CheckpointWriter(run, keep=2) as writer:
        writer.save(checkpoint(3), best=None)
        _ = 1 / 0


def broken_storage(run: RunDirectory) -> str:
    """A folder that is a file, or a bucket that is not there."""
    if run.uri.startswith("s3://"):
        return run.uri.replace("bucket", "nosuch")
    run.write("file", b"")
    return f"{run.uri}/file"
