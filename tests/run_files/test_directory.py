from pathlib import Path

import pytest
import torch

from blitz.errors import UserError
from blitz.run_files.directory import RunDirectory
from blitz.storage import open_location
from blitz.training.checkpoint import Checkpoint
from tests.object_store import uri_of

STATE = {"step": 3, "best": None}


def checkpoint(step: int) -> Checkpoint:
    tied = torch.arange(4.0)
    weights, optimizer = {"a": tied, "b": tied}, {"momentum_buffer/a": tied * 2}
    return Checkpoint(step, weights, optimizer, {**STATE, "step": step}).copied()


@pytest.fixture(params=["disk", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    if request.param == "disk":
        return RunDirectory.of(str(tmp_path), "run")
    return RunDirectory.of(uri_of(request.getfixturevalue("s3_port"), tmp_path.name), "run")


def test_a_checkpoint_comes_back_as_it_was(run: RunDirectory) -> None:
    checkpoint(3).save(run)
    loaded = Checkpoint.load(run, 3)
    assert loaded.weights["b"].tolist() == [0, 1, 2, 3]
    assert loaded.optimizer["momentum_buffer/a"].tolist() == [0, 2, 4, 6]
    assert loaded.state["step"] == 3


@pytest.mark.parametrize("damage", ["no state", "half a state", "half the weights", "no optimizer"])
def test_a_half_written_checkpoint_counts_as_none(run: RunDirectory, damage: str) -> None:
    checkpoint(3).save(run)
    checkpoint(6).save(run)
    files, path = open_location(run.uri)
    match damage:
        case "no state":
            files.delete_file(f"{path}/checkpoints/6/state.json")
        case "half a state":
            run.write("checkpoints/6/state.json", run.read("checkpoints/6/state.json")[:20])
        case "half the weights":
            run.write("checkpoints/6/weights.safetensors", run.read("checkpoints/6/weights.safetensors")[:-5])
        case "no optimizer":
            files.delete_file(f"{path}/checkpoints/6/optimizer.safetensors")
    assert run.checkpoint_steps() == [3]
    with pytest.raises(UserError, match=r"no whole checkpoint of step 6; there are: 3"):
        Checkpoint.load(run, 6)
    checkpoint(6).save(run)
    assert run.checkpoint_steps() == [3, 6]


def test_a_deleted_checkpoint_is_gone(run: RunDirectory) -> None:
    checkpoint(3).save(run)
    run.delete_checkpoint(3)
    assert run.checkpoint_steps() == []
    assert not run.exists("checkpoints/3")


def test_metrics_are_cut_back_to_a_step_and_a_torn_line_is_left_out(run: RunDirectory) -> None:
    run.write("metrics.jsonl", b"")
    run.append_metrics([{"step": 1}, {"step": 2}])
    run.append_metrics([{"step": 3}])
    run.write("metrics.jsonl", run.read("metrics.jsonl") + b'{"step": 4, "train/l')
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]
    run.rewind(2)
    assert [line["step"] for line in run.metrics()] == [1, 2]


def test_a_storage_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"--storage: .* cannot be written"):
        RunDirectory.of(str(tmp_path / "file"), "run").probe()


def test_a_bucket_that_is_not_there_is_refused(s3_port: int) -> None:
    with pytest.raises(UserError, match=r"--storage: s3://nosuch/run\S+ cannot be written .*name another one"):
        RunDirectory.of(uri_of(s3_port).replace("bucket", "nosuch"), "run").probe()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_server_that_does_not_answer_is_refused_in_seconds(scheme: str) -> None:
    server = "scheme=http&endpoint_override=127.0.0.1:1"
    with pytest.raises(UserError, match=r"--storage: .* cannot be read \(.*Could not connect to server.*name another"):
        RunDirectory.of(f"{scheme}://anonymous@bucket/runs?{server}", "run").checkpoint_steps()


def test_a_storage_that_cannot_be_opened_is_refused() -> None:
    with pytest.raises(UserError, match="nosuch://bucket/run cannot be opened"):
        RunDirectory.of("nosuch://bucket", "run").probe()


def test_a_run_is_found_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    assert RunDirectory.find("one").uri == str(tmp_path / "runs" / "one")
    assert RunDirectory.find("runs/one").uri == str(tmp_path / "runs" / "one")
    assert RunDirectory.of("s3://bucket/runs/?region=x", "one").uri == "s3://bucket/runs/one?region=x"
