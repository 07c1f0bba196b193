"""Sweeps on Ray come to what they come to in this process."""

from pathlib import Path

import pytest

from blitz.training.run_directory import RunDirectory
from jobs import tune
from tests.jobs.test_tune import rows_of
from tests.running import losses

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_runtime")]

FLAGS = ["--epochs", "3"]


@pytest.fixture
def on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where RAY_ADDRESS names a cluster."""
    monkeypatch.setenv("RAY_ADDRESS", "local")


def sweep(folder: Path, run: str, *words: str) -> list[dict[str, str]]:
    tune.main(["optimizers", *FLAGS, *words, "--storage", str(folder), "--run", run])
    return rows_of(folder / run)


def columns(rows: list[dict[str, str]], *left_out: str) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in ("seconds", *left_out)} for row in rows]


@pytest.mark.usefixtures("on_ray")
def test_trials_in_processes_of_their_own_and_more_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path, "ray", "--packed", "no", "--num-trials", "2")
    rows = sweep(tmp_path, "ray", "--packed", "no", "--num-trials", "3")
    assert "repeat it: python -m jobs.train parabola" in capsys.readouterr().out
    here = sweep(tmp_path, "here", "--packed", "no", "--num-trials", "3", "--scale.num-workers", "0")
    assert columns(rows) == columns(here)
    there, again = (RunDirectory.of(str(tmp_path / run), "best") for run in ("ray", "here"))
    assert losses(there) == losses(again)


@pytest.mark.usefixtures("on_ray")
def test_asha_of_ray_tune_stops_trials(tmp_path: Path) -> None:
    rows = sweep(
        tmp_path, "asha", "--packed", "no", "--num-trials", "4", "--scheduler", "asha", "--max-concurrent", "1"
    )
    assert {row["state"] for row in rows} == {"finished", "stopped"}
    assert all(int(row["step"]) == 96 for row in rows if row["state"] == "finished")
    assert all(int(row["step"]) < 96 and row["best"] for row in rows if row["state"] == "stopped")


@pytest.mark.usefixtures("on_ray")
def test_packs_spread_over_the_cluster(tmp_path: Path) -> None:
    rows = sweep(tmp_path, "ray", "--num-trials", "6")
    here = sweep(tmp_path, "here", "--num-trials", "6", "--scale.num-workers", "0")
    assert columns(rows, "last", "best") == columns(here, "last", "best")
    assert [float(row["best"]) for row in rows] == pytest.approx([float(row["best"]) for row in here], rel=1e-4)


def test_each_trial_on_two_workers(tmp_path: Path) -> None:
    words = ["--num-trials", "2", "--scale.num-workers", "2"]
    rows = sweep(tmp_path, "workers", *words)
    here = sweep(tmp_path, "here", "--packed", "no", "--num-trials", "2", "--scale.num-workers", "0")
    assert [row["state"] for row in rows] == ["finished", "finished"]
    assert [float(row["best"]) for row in rows] == pytest.approx([float(row["best"]) for row in here], rel=1e-4)
