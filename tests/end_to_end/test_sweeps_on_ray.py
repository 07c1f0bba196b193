"""Sweeps on Ray come to what they come to in this process."""

import json
from pathlib import Path

import pytest
from ray import tune as ray_tune

from blitz.cli import tune
from blitz.launch.tune.space import Space
from blitz.run_files.directory import RunDirectory
from blitz.run_files.sweep_directory import NotMeasured
from tests.cli.test_tune import CLOSE, rows_of, space_here
from tests.clusters import Head
from tests.end_to_end.test_sweeps import start, wait_for
from tests.running import losses

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_runtime")]

FLAGS = ["--epochs", "3", "--no-report"]


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
    assert "repeat it: blitz train parabola" in capsys.readouterr().out
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
    assert [float(row["best"]) for row in rows] == pytest.approx([float(row["best"]) for row in here], rel=CLOSE)


def test_each_trial_on_two_workers(tmp_path: Path) -> None:
    words = ["--num-trials", "1", "--scale.num-workers"]
    rows = sweep(tmp_path, "workers", *words, "2")
    here = sweep(tmp_path, "here", "--packed", "no", *words, "0")
    assert [row["state"] for row in rows] == ["finished"]
    assert [float(row["best"]) for row in rows] == pytest.approx([float(row["best"]) for row in here], rel=CLOSE)


@pytest.mark.parametrize("way", [["--packed", "no"], []], ids=["alone", "packed"])
@pytest.mark.usefixtures("on_ray")
def test_a_metric_that_no_trial_has_ends_the_sweep(
    way: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space_here(monkeypatch, Space(recipe="parabola", parameters={}, metric="val/charm", mode="max"))
    with pytest.raises(NotMeasured, match=r"^the space's metric val/charm is not among val/loss, "):
        sweep(tmp_path, "none", *way, "--num-trials", "6", "--max-concurrent", "1")
    # A pack has begun as a whole.
    if way:
        assert len(list((tmp_path / "none" / "trials").iterdir())) < 6


@pytest.mark.usefixtures("on_ray")
def test_a_trial_that_fails_before_its_first_evaluation_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"optim.lr": ray_tune.grid_search([1e30, 0.1])}
    space_here(monkeypatch, Space(recipe="parabola", parameters=parameters, search="grid"))
    diverges, trains = sweep(tmp_path, "one", "--packed", "no", "--max-concurrent", "1")
    assert (diverges["state"], diverges["best"], trains["state"]) == ("failed", "", "finished")
    assert "nan" in diverges["error"]


@pytest.mark.slow
def test_a_sweep_whose_driver_is_killed_resumes(head: Head, tmp_path: Path) -> None:
    words = [
        "optimizers",
        "--no-report",
        "--epochs",
        "20",
        "--packed",
        "no",
        "--num-trials",
        "3",
        "--max-concurrent",
        "2",
    ]
    env = {**head.env, "RAY_ADDRESS": head.address}
    process = start(words, tmp_path, "killed", env)
    wait_for(tmp_path / "killed" / "trials" / "0002" / "metrics.jsonl", process)
    process.kill()
    process.communicate()
    assert json.loads((tmp_path / "killed" / "trials" / "0002" / "trial.json").read_text())["state"] == "running"
    going_on = start(words, tmp_path, "killed", env)
    _, printed = going_on.communicate()
    assert going_on.returncode == 0, printed
    here = sweep(tmp_path, "here", *words[1:], "--scale.num-workers", "0")
    assert columns(rows_of(tmp_path / "killed")) == columns(here)
