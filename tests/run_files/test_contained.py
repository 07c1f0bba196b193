"""Run directories that somebody else made: nothing outside of them is read or written on their account."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from blitz.cli import export, report, train
from blitz.errors import StorageError, UserError
from blitz.report.page import run_page
from blitz.report.record import read_record
from blitz.report.sweep_page import read_sweep
from blitz.run_files.directory import RunDirectory
from blitz.run_files.listing import list_runs
from tests.run_files.test_damaged_checkpoints import saved

SECRET = b"\x89PNG of somebody else"
DIGITS = ["digits", "--epochs", "1", "--max-train-rows", "32", "--max-eval-rows", "10", "--scale.num-workers", "0"]


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file outside of the run, which is as it was in the end."""
    file = tmp_path / "outside" / "secret.png"
    file.parent.mkdir()
    file.write_bytes(SECRET)
    yield file
    assert file.read_bytes() == SECRET
    assert [one.name for one in file.parent.iterdir()] == ["secret.png"]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.of(str(tmp_path / "storage"), "one")
    run.write_json("recipe.json", {"recipe": "digits"})
    saved(run, 3)
    return run


def link(run: RunDirectory, path: str, to: Path) -> None:
    at = Path(run.uri, path)
    at.parent.mkdir(parents=True, exist_ok=True)
    at.unlink(missing_ok=True)
    at.symlink_to(to)


def test_a_link_out_of_the_run_is_neither_read_nor_written(run: RunDirectory, secret: Path) -> None:
    link(run, "file", secret)
    link(run, "folder", secret.parent)
    link(run, "chain", Path("file"))
    for path in ("file", "chain", "folder/secret.png", "folder/new", "../../outside/secret.png"):
        for use in (run.read, lambda path: run.append(path, b"x"), lambda path: run.tail(path, 9)):
            with pytest.raises(StorageError, match=r"is not followed; delete it|is not opened"):
                use(path)
    with pytest.raises(StorageError):
        run.write("folder/new", b"x")
    with pytest.raises(StorageError):
        run.names("folder")
    with pytest.raises(StorageError):
        run.delete_folder("folder")


@pytest.mark.parametrize("path", ["report.html", "report.html.tmp", ".lock", ".probe", "metrics.jsonl", "events.jsonl"])
def test_no_command_writes_through_a_link(tmp_path: Path, secret: Path, path: str) -> None:
    new = RunDirectory.of(str(tmp_path / "storage"), "new")
    link(new, path, secret)
    # Whether it is refused or done by another file, what is outside stays as it is.
    with suppress(UserError):
        train.main([*DIGITS, "--storage", str(tmp_path / "storage"), "--run", "new"])
    with suppress(UserError):
        report.main([new.uri])


def test_a_link_to_a_system_file_does_not_become_a_picture_of_the_report(run: RunDirectory, secret: Path) -> None:
    link(run, "pictures/val-3.png", secret)
    with pytest.raises(UserError, match=r"pictures/val-3\.png is a symbolic link out of the run"):
        read_record(run)


@pytest.mark.parametrize("picture", ["file:///etc/passwd", "../../etc/passwd", "http://127.0.0.1:1/x.png", 5])
def test_a_picture_that_a_browser_would_fetch_is_refused(run: RunDirectory, picture: object) -> None:
    evaluation = {
        "split": "val",
        "step": 3,
        "best": "loss",
        "figures": {"loss": 1.0},
        "sums": {"rows": 1},
        "examples": {"mistakes": [{"row": 0, "picture": picture}]},
    }
    run.write("evaluations/best.json", json.dumps(evaluation).encode())
    with pytest.raises(UserError, match=r"best\.json is damaged: 'picture' is "):
        read_record(run)


def test_parts_of_a_sweep_do_not_lead_out_of_it(tmp_path: Path, secret: Path) -> None:
    sweep = RunDirectory.of(str(tmp_path), "sweep")
    sweep.write_json("sweep.json", {"metric": "val/loss", "mode": "min", "num_trials": 1})
    sweep.write("trials.csv", b"trial,state,last,best,step,seconds,error\n0,finished,1,1,2,3,\n")
    (secret.parent / "metrics.jsonl").write_text('{"step": 1, "val/loss": 1}\n')
    link(sweep, "trials/0000", secret.parent)
    with pytest.raises(UserError, match="is a symbolic link out of the run"):
        read_sweep(sweep)
    (secret.parent / "metrics.jsonl").unlink()
    Path(sweep.uri, "trials/0000").unlink()
    link(sweep, "best", secret.parent)
    with pytest.raises(UserError, match="is a symbolic link out of the run"):
        read_sweep(sweep)


def test_an_export_does_not_leave_the_run_by_a_link(tmp_path: Path, secret: Path) -> None:
    train.main([*DIGITS, "--storage", str(tmp_path), "--run", "one", "--no-report"])
    run = RunDirectory.of(str(tmp_path), "one")
    link(run, "export", secret.parent)
    with pytest.raises(UserError, match="symbolic link out of the run"):
        export.main([run.uri, "--format", "state_dict"])


def test_a_pipe_in_a_run_is_refused_rather_than_waited_for(run: RunDirectory) -> None:
    for name in ("metrics.jsonl", "plan.json"):
        os.mkfifo(Path(run.uri, name))
        with pytest.raises(UserError, match="is neither a file nor a directory"):
            read_record(run)
        (listed,) = list_runs(str(Path(run.uri).parent))
        assert listed.state == "damaged"
        Path(run.uri, name).unlink()


def test_a_run_that_is_reached_through_links_works_and_so_do_links_within_it(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(tmp_path / "storage")
    (tmp_path / "storage" / "two").symlink_to(run.uri)
    for path in (tmp_path / "linked" / "one", tmp_path / "storage" / "two", tmp_path / "linked" / "two"):
        found = RunDirectory.of(str(path))
        found.write("pictures/new.txt", b"here")
        assert found.read("pictures/new.txt") == b"here"
        assert found.newest_step(9) == 3
        run_page(read_record(found))
    link(run, "also.txt", Path("pictures/new.txt"))
    assert run.read("also.txt") == b"here"
    assert {one.name for one in list_runs(str(tmp_path / "linked"))} == {"one", "two"}
