"""Checkpoints whose bytes are not those that were written."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from blitz.errors import UserError
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from tests.object_store import uri_of
from tests.running import result, same_bits, train, weights

FILES = ("weights.safetensors", "optimizer.safetensors", "state.json")
SMALL = Digits(epochs=3, max_train_rows=32, max_eval_rows=10, global_batch_size=16)
"""Two steps an epoch."""


def saved(run: RunDirectory, step: int, *, best: int | None = None) -> None:
    values = torch.arange(64.0) * step
    state = {"step": step, "best": None if best is None else {"step": best, "value": 0.5}, "loss_sum": 1.5}
    Checkpoint(step, {"a": values}, {"momentum_buffer/a": values * 2}, state).save(run)


@pytest.fixture(params=["disk", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    """With checkpoints of the steps 3 and 6."""
    storage = str(tmp_path) if request.param == "disk" else uri_of(request.getfixturevalue("s3_port"), tmp_path.name)
    run = RunDirectory.of(storage, "run")
    saved(run, 3)
    saved(run, 6)
    return run


def flip(run: RunDirectory, path: str, bit: int) -> None:
    data = bytearray(run.read(path))
    data[bit // 8] ^= 1 << bit % 8
    run.write(path, bytes(data))


def require_step_3(run: RunDirectory, reported: list[str]) -> None:
    reported.clear()
    assert run.newest_step(100) == 3
    assert run.checkpoint_step("last", report=reported.append) == 3
    with pytest.raises(UserError) as refused:
        Checkpoint.load(run, 6)
    assert "there are: 3" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_anywhere_makes_the_older_checkpoint_be_taken(run: RunDirectory, file: str) -> None:
    path, reported = f"checkpoints/6/{file}", list[str]()
    data = run.read(path)
    last = 8 * len(data) - 1
    bits = [0, 9, 70, last // 2, last - 20, *random.Random(0).sample(range(last), 3)]
    for bit in bits:
        flip(run, path, bit)
        require_step_3(run, reported)
        if file != "state.json":
            assert reported == [
                f"{run}/{path} is damaged: its SHA-256 is not the one in state.json; an older one is taken"
            ]
        run.write(path, data)
    assert run.newest_step(100) == 6


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_cut_off_at_any_length_makes_the_older_checkpoint_be_taken(tmp_path: Path, file: str) -> None:
    run = RunDirectory.of(str(tmp_path), "run")
    saved(run, 3)
    saved(run, 6)
    path = f"checkpoints/6/{file}"
    data = run.read(path)
    for length in (0, 1, 8, len(data) // 2, len(data) - 2):
        run.write(path, data[:length])
        require_step_3(run, [])


@pytest.mark.parametrize("files", [("weights.safetensors",), ("optimizer.safetensors",), ("state.json",), FILES])
def test_files_of_another_checkpoint_are_not_taken_for_its_own(run: RunDirectory, files: tuple[str, ...]) -> None:
    for file in files:
        run.write(f"checkpoints/6/{file}", run.read(f"checkpoints/3/{file}"))
    require_step_3(run, [])


def change_state(run: RunDirectory, folder: int, /, **changes: object) -> None:
    path = f"checkpoints/{folder}/state.json"
    state = {**json.loads(run.read(path)), **changes}
    run.write(path, json.dumps({name: value for name, value in state.items() if value is not None}).encode())


def test_a_checkpoint_of_an_older_version_which_has_no_digests_is_loaded(run: RunDirectory) -> None:
    change_state(run, 6, sha256=None)
    assert run.newest_step(100) == run.checkpoint_step("last") == 6
    assert Checkpoint.load(run, 6).weights["a"][1] == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 4},
        {"step": "6"},
        {"step": 1e400},
        {"files": ["weights.safetensors"]},
        {"files": {"../../../secret": 6, "weights.safetensors": 320, "optimizer.safetensors": 336}},
        {"best": 3},
        {"sha256": {"weights.safetensors": 5}},
    ],
    ids=str,
)
def test_a_state_of_another_step_or_of_another_shape_is_not_believed(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    (tmp_path / "secret").write_text("secret")
    run = RunDirectory.of(str(tmp_path), "run")
    saved(run, 3)
    saved(run, 6)
    # As an older version wrote it: nothing but its content tells.
    change_state(run, 6, **{"sha256": None, **changes})
    require_step_3(run, [])


def test_of_a_damaged_best_checkpoint_the_best_before_it_is_taken(tmp_path: Path) -> None:
    run, reported = RunDirectory.of(str(tmp_path)), list[str]()
    for step, best in ((3, 3), (6, 3), (9, 9)):
        saved(run, step, best=best)
    assert run.checkpoint_step("best") == 9
    flip(run, "checkpoints/9/weights.safetensors", 2000)
    assert run.checkpoint_step("best", report=reported.append) == 3
    assert len(reported) == 1
    flip(run, "checkpoints/3/weights.safetensors", 2000)
    with pytest.raises(UserError, match=r"checkpoints/9/weights\.safetensors is damaged.*--checkpoint; there are: 6"):
        run.checkpoint_step("best")


def test_of_a_best_checkpoint_that_is_not_whole_or_gone_the_best_before_it_is_taken(tmp_path: Path) -> None:
    run, reported = RunDirectory.of(str(tmp_path)), list[str]()
    for step, best in ((3, 3), (6, 6), (9, 6)):
        saved(run, step, best=best)
    (tmp_path / "checkpoints" / "6" / "weights.safetensors").unlink()
    assert run.checkpoint_step("best", report=reported.append) == 3
    assert reported == [f"{run}/checkpoints/6 is damaged: it is not whole; an older one is taken"]
    run.delete_folder("checkpoints/6")
    assert run.checkpoint_step("best") == 3
    run.delete_folder("checkpoints/3")
    with pytest.raises(UserError, match=r"checkpoints/6 is damaged: it is not whole.*there are: 9"):
        run.checkpoint_step("best")


def test_a_rewind_deletes_damaged_checkpoints_and_no_others(run: RunDirectory) -> None:
    saved(run, 9)
    flip(run, "checkpoints/6/weights.safetensors", 2000)
    run.write("checkpoints/12/weights.safetensors", b"its run was killed while it was written")
    assert run.damaged_after(3) == [6]
    run.rewind(3)
    assert (run.checkpoint_steps(), run.exists("checkpoints/6")) == ([3, 9], False)


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one_says_so_and_ends_as_if_nothing_had_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(SMALL, tmp_path / "whole")
    train(replace(SMALL, epochs=2), tmp_path / "damaged")
    run = RunDirectory.of(str(tmp_path / "damaged"))
    flip(run, "checkpoints/4/weights.safetensors", 40_000)
    capsys.readouterr()
    train(SMALL, tmp_path / "damaged")
    assert "the checkpoint of step 4 is damaged and is deleted; the run resumes from step 2" in capsys.readouterr().out
    resumed = [event for event in run.events() if event["what"] == "resumed"]
    assert [(event["step"], event["damaged"]) for event in resumed] == [(2, [4])]
    assert same_bits(weights(run), weights(whole))
    assert result(run) == result(whole)


def test_a_run_all_of_whose_checkpoints_are_damaged_starts_again(tmp_path: Path) -> None:
    run = train(replace(SMALL, epochs=1), tmp_path)
    flip(run, "checkpoints/2/optimizer.safetensors", 900)
    train(replace(SMALL, epochs=1), tmp_path)
    assert [(event["what"], event.get("damaged")) for event in run.events()][2:] == [
        ("started", [2]),
        ("finished", None),
    ]
    assert run.newest_step(2) == 2
