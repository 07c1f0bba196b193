"""Disks that are full or read-only, as real file systems in memory: one line, and what was computed is printed."""

import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from blitz.cli import command_line, evaluate, export, prepare, report, train
from blitz.errors import UserError
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint_writer import CheckpointWriter

DIGITS = ["digits", "--epochs", "1", "--max-train-rows", "32", "--max-eval-rows", "10", "--log-every-steps", "1"]
HERE = ["--scale.num-workers", "0", "--scale.use-gpu", "no"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"needs a file system of its own, and to mount one is not permitted: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def make_read_only(disk: Path) -> None:
    # What is open for writing keeps a file system writable.
    gc.collect()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def fill(disk: Path, *, leave: int = 0) -> None:
    """Take all space but for `leave` bytes, in pages of 4 KiB."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    if leave:
        os.truncate(disk / "filler", (disk / "filler").stat().st_size - leave)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs a command that is to end with code 2 and one line; what it printed, and that line."""

    def run(job: Any, *words: str) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", ["job", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            command_line.run(job.main, list(words))
        out, err = capsys.readouterr()
        assert leaving.value.code == 2, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return out, err

    return run


def add_many(writer: CheckpointWriter) -> None:
    """More than fit into the rest of a file's last page."""
    for step in range(1, 1000):
        writer.add_metrics({"step": step, "train/loss": 0.5})


def test_metrics_that_a_full_disk_does_not_take_end_the_run_in_one_line(disk: Path) -> None:
    run = RunDirectory.of(str(disk), "one")
    run.append_metrics([{"step": 0}])
    with CheckpointWriter(run, keep=1) as writer:
        writer.begin(0)
        fill(disk)
        with pytest.raises(UserError, match=r"--storage: .* cannot be written \(.*No space left on device"):
            add_many(writer)
    (disk / "filler").unlink()
    steps = [line["step"] for line in run.metrics()]
    assert steps == list(range(len(steps)))


def test_a_run_whose_disk_becomes_full_says_so_and_resumes_once_there_is_room(
    disk: Path, call: Callable[..., tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*DIGITS, *HERE, "--no-report", "--storage", str(disk), "--run", "one"]
    fill(disk, leave=64 * 1024)
    _, err = call(train, *words)
    assert "No space left on device" in err
    assert str(disk) in err
    (disk / "filler").unlink()
    train.main(words)
    assert "val/accuracy" in capsys.readouterr().out


@pytest.fixture
def trained(disk: Path) -> RunDirectory:
    train.main([*DIGITS, *HERE, "--no-report", "--storage", str(disk), "--run", "one"])
    return RunDirectory.of(str(disk), "one")


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_evaluate_prints_what_it_found_where_it_cannot_be_written(
    trained: RunDirectory, disk: Path, kind: str, call: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    fill(disk) if kind == "full" else make_read_only(disk)
    out, err = call(evaluate, trained.uri, *HERE)
    assert "10 rows of val" in out
    assert "\nloss " in out
    assert "confusion matrix" in out
    assert f"{trained}/evaluations/val-1.json cannot be written (" in err
    assert ("No space left" if kind == "full" else "Read-only file system") in err


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_export_and_report_name_what_cannot_be_written_and_the_flag_for_another_path(
    trained: RunDirectory, disk: Path, kind: str, call: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    fill(disk) if kind == "full" else make_read_only(disk)
    _, err = call(export, trained.uri, "--format", "state_dict")
    assert f"{trained}/export/digits-1" in err
    assert "--output" in err
    export.main([trained.uri, "--format", "state_dict", "--output", str(tmp_path / "elsewhere.pt")])
    _, err = call(report, trained.uri)
    assert f"{trained}/report.html cannot be written (" in err
    assert "--out" in err
    report.main([trained.uri, "--out", str(tmp_path / "elsewhere.html")])


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_folder_for_the_index_of_a_csv_that_cannot_be_written_is_named(
    disk: Path, kind: str, call: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    csv = tmp_path / "table.csv"
    csv.write_text("a,b\n" + "".join(f"{row},{row % 3}\n" for row in range(300)))
    fill(disk) if kind == "full" else make_read_only(disk)
    _, err = call(prepare, str(csv), "--out", str(disk / "prepared"))
    assert f"{disk}/prepared cannot be written (" in err
    assert "--out" in err
    words = ["table_csv", "--data.train-csv", str(csv), "--data.target", "b", "--data.cache", str(disk / "cache")]
    _, err = call(train, *words, *HERE, "--storage", str(tmp_path / "runs"))
    assert f"{disk}/cache cannot be written (" in err
    assert "--data.cache" in err


def test_prepare_prints_its_report_also_where_the_list_of_bad_rows_cannot_be_written(
    disk: Path, call: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    csv, words = tmp_path / "table.csv", ["--out", str(disk), "--types", "b", "number", "--bad-rows", "skip"]
    csv.write_text("a,b\n" + "".join(f"{row},{row % 3}\n" for row in range(300)) + "1,x\n")
    prepare.main([str(csv), *words])
    (disk / "table.bad_rows.csv").unlink()
    make_read_only(disk)
    out, err = call(prepare, str(csv), *words)
    assert "301 rows, 2 columns" in out
    assert "1 bad row" in out
    assert f"{disk}/table.bad_rows.csv cannot be written (" in err
