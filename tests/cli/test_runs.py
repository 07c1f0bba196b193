"""What `blitz runs` says of real run directories."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blitz.cli import runs, train
from blitz.errors import UserError
from blitz.run_files.directory import RunDirectory
from blitz.run_files.listing import list_runs
from blitz.storage import open_location
from tests.object_store import uri_of

FLAGS = ["digits", "--max-train-rows", "320", "--max-eval-rows", "40", "--epochs", "2", "--scale.num-workers", "0"]
"""10 steps an epoch."""


def train_here(storage: str, name: str, *flags: str) -> RunDirectory:
    train.main([*FLAGS, "--storage", storage, "--run", name, *flags])
    return RunDirectory.of(storage, name)


def make_stopped(run: RunDirectory, *, checkpoints: bool = True) -> None:
    """What a kill before the end leaves."""
    files = [file for file in Path(run.uri).rglob("*") if file.is_file()]
    for file in files:
        if file.name == "result.json" or "20" in file.parts or (not checkpoints and "checkpoints" in file.parts):
            file.unlink()


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """A finished run, one that was stopped after its first epoch, one that was stopped before, and no run."""
    train_here(str(tmp_path), "whole")
    make_stopped(train_here(str(tmp_path), "half"))
    make_stopped(train_here(str(tmp_path), "none", "--log-every-steps", "5"), checkpoints=False)
    (tmp_path / "other").mkdir()
    now = datetime.now(UTC).timestamp()
    for age_s, name in ((7300.0, "half"), (200.0, "none"), (30.0, "whole")):
        for file in (tmp_path / name).iterdir():
            os.utime(file, (now - age_s, now - age_s))
    return str(tmp_path)


def test_runs_are_listed_newest_first_with_state_step_metric_and_age(
    storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    runs.main(["--storage", storage])
    header, *lines = (re.split(r"  +", line) for line in capsys.readouterr().out.splitlines())
    assert header == ["run", "state", "step", "best", "goodput", "last written"]
    assert [line[:3] for line in lines] == [
        ["whole", "finished", "20/20"],
        ["none", "never checkpointed", "20/20"],
        ["half", "stopped", "20/20"],
    ]
    assert re.fullmatch(r"val/accuracy 0\.\d{4}", lines[0][3])
    assert re.fullmatch(r"val/accuracy 0\.\d{4}", lines[2][3])
    assert re.fullmatch(r"\d+%", lines[0][4])
    assert [line[-1] for line in lines[1:]] == ["3 min ago", "2 h ago"]


def test_the_best_metric_is_that_of_the_best_checkpoint(storage: str) -> None:
    (whole,) = [run for run in list_runs(storage) if run.name == "whole"]
    values = [line["val/accuracy"] for line in RunDirectory.of(storage, "whole").metrics() if "val/accuracy" in line]
    assert whole.best == ("val/accuracy", max(values))
    assert (whole.step, whole.total_steps) == (20, 20)


def test_a_run_is_running_while_its_process_lives(tmp_path: Path) -> None:
    words = ["digits", "--epochs", "10000", "--run", "one", "--storage", str(tmp_path), "--log-every-steps", "1"]
    with subprocess.Popen([sys.executable, "-m", "jobs.train", *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # By the third evaluation the checkpoint of the first is whole.
        assert [process.stdout.readline()[:5] for _ in range(4)] == ["run: ", "step ", "step ", "step "]
        (run,) = list_runs(str(tmp_path))
        assert (run.name, run.state, run.total_steps) == ("one", "running", 450_000)
        assert run.step >= 45
        # Looking does not disturb it.
        assert process.poll() is None
        process.kill()
    (run,) = list_runs(str(tmp_path))
    assert run.state == "stopped"


def test_on_an_object_store_age_tells_what_runs(s3_port: int) -> None:
    storage = uri_of(s3_port, "listed")
    train_here(storage, "whole")
    stopped = train_here(storage, "half")
    files, root = open_location(stopped.uri)
    files.delete_file(f"{root}/result.json")
    assert {run.name: (run.state, run.step) for run in list_runs(storage)} == {
        "whole": ("finished", 20),
        "half": ("running", 20),
    }
    states = {run.name: run.state for run in list_runs(storage, quiet=timedelta(0))}
    assert states == {"whole": "finished", "half": "stopped"}


def test_a_recipe_that_is_gone_is_listed_all_the_same(storage: str) -> None:
    recipe = Path(storage, "whole", "recipe.json")
    recipe.write_text(recipe.read_text().replace('"digits"', '"gone"'))
    assert [run.best[0] for run in list_runs(storage) if run.name == "whole" and run.best] == ["val/accuracy"]


def test_a_storage_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.main(["--storage", str(tmp_path)])
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"
    with pytest.raises(UserError, match="cannot be listed"):
        runs.main(["--storage", str(tmp_path / "nosuch")])
