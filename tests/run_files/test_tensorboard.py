"""What TensorBoard's own reader finds in a run."""

from dataclasses import replace
from pathlib import Path

import pyarrow.fs
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.run_files.tensorboard import begin_event_file, event_record
from blitz.training.loop import Checkpoints
from tests.object_store import uri_of
from tests.running import train

RECIPE = Digits(epochs=2, max_train_rows=70, max_eval_rows=50, global_batch_size=16, log_every_steps=1)
"""Five steps an epoch."""
CHECKPOINTS = Checkpoints(every_steps=3, keep=100)


def assert_both_say_the_same(run: RunDirectory, folder: Path) -> None:
    """The event files in `folder`, and metrics.jsonl of the run."""
    events = EventAccumulator(str(folder)).Reload()
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in run.metrics():
        for name in line.keys() - {"step", "epoch"}:
            tag = name if "/" in name else f"train/{name}"
            expected.setdefault(tag, []).append((line["step"], line[name]))
    assert set(events.Tags()["scalars"]) == expected.keys() >= {"train/loss", "train/lr", "val/loss", "val/accuracy"}
    for tag, points in expected.items():
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in found] == [step for step, _ in points]
        assert [value for _, value in found] == pytest.approx([value for _, value in points], rel=1e-6)
        times = [event.wall_time for event in events.Scalars(tag)]
        assert times == sorted(times)


def test_a_damaged_event_file_stops_no_run(tmp_path: Path) -> None:
    """With a bit flipped anywhere, what is kept is events that were there."""
    run = RunDirectory.of(str(tmp_path))
    name = begin_event_file(run, 0, time_s=1.0)
    run.append(name, b"".join(event_record({"step": step, "loss": 0.5}, time_s=2.0) for step in (1, 2, 3)))
    whole = run.read(name)
    for index in range(len(whole)):
        run.write(name, whole[:index] + bytes([whole[index] ^ 1 << index % 8]) + whole[index + 1 :])
        begin_event_file(run, 2, time_s=3.0)
        assert len(run.read(name)) < len(whole)


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_runs_that_resume_leave_neither_a_gap_nor_double_points(store: str, tmp_path: Path, s3_port: int) -> None:
    storage = str(tmp_path) if store == "disk" else uri_of(s3_port, "events")
    run = train(RECIPE, storage, checkpoints=CHECKPOINTS)
    # As if killed after step 6: the steps 7 to 10 are made again, and five more.
    for step in (9, 10):
        run.delete_checkpoint(step)
    train(replace(RECIPE, epochs=3), storage, checkpoints=CHECKPOINTS)
    if store == "s3":
        files, root = pyarrow.fs.FileSystem.from_uri(run.uri)
        pyarrow.fs.copy_files(root, str(tmp_path), source_filesystem=files)
    assert [line["step"] for line in run.metrics() if "train/loss" in line] == list(range(1, 16))
    assert_both_say_the_same(run, tmp_path)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
