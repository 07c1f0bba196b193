"""`blitz tune` in this process: what it leaves, what it prints, how it resumes."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from ray import tune as ray_tune

from blitz.cli import evaluate, runs, train, tune
from blitz.errors import UserError
from blitz.launch.tune.space import Space
from blitz.recipes.parabola import Parabola
from blitz.run_files.directory import RunDirectory
from blitz.run_files.listing import list_runs
from tests.running import losses, result
from tune_spaces import space_names

QUICK = ["--epochs", "3", "--scale.num-workers", "0"]
ALONE = ["--packed", "no"]
EACH_WAY = pytest.mark.parametrize("way", [ALONE, []], ids=["alone", "packed"])

CLOSE = 0.01
"""Relative. That packs and workers compute what a solo run does is shown in float64 (tests/training). Here fp32 rounds
for 96 steps, so this only says that a result is its trial's: those of others differ by far more."""


def sweep(folder: Path, *words: str, space: str = "optimizers", run: str = "s") -> list[dict[str, str]]:
    """The rows of trials.csv of a sweep, run or gone on with."""
    tune.main([space, *QUICK, "--storage", str(folder), "--run", run, *words])
    return rows_of(folder / run)


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))


def settings_of(row: dict[str, str]) -> list[str]:
    return [value for name, value in row.items() if name not in ("last", "best", "seconds")]


def without_seconds(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_without_words_the_spaces_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    tune.main([])
    listed = re.findall(r"^  (\w+) +\S", capsys.readouterr().out, re.MULTILINE)
    assert listed == space_names() == ["cifar10", "digits", "mnist", "optimizers", "table_csv", "table_csv_realmlp"]


@EACH_WAY
def test_a_sweep_leaves_its_trials_its_best_run_and_the_command_that_repeats_it(
    way: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sweep(tmp_path, *way, "--num-trials", "9")
    printed = capsys.readouterr().out
    assert [row["trial"] for row in rows] == [str(number) for number in range(9)]
    assert {row["state"] for row in rows} == {"finished"}
    best = min(rows, key=lambda row: float(row["best"]))
    assert f"best: trial {best['trial']}, val/rmse {float(best['best']):.6g}" in printed

    asked = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert (asked["space"], asked["metric"], asked["mode"], asked["num_trials"]) == ("optimizers", "val/rmse", "min", 9)
    assert "loguniform in (0.001, 1.0)" in asked["parameters"]["optim.lr"]
    pictures = {file.name for file in (tmp_path / "s" / "pictures").iterdir()}
    assert {"curves.png", "by-optim.lr.png", "by-optim.name.png", "importance.png"} <= pictures
    importance = json.loads((tmp_path / "s" / "importance.json").read_text())
    assert sum(importance.values()) == pytest.approx(1)

    run = RunDirectory.of(str(tmp_path / "s"), "best")
    (command,) = re.findall(r"^repeat it: blitz train (.*)$", printed, re.MULTILINE)
    train.main([*shlex.split(command), "--scale.num-workers", "0", "--storage", str(tmp_path), "--run", "again"])
    again = RunDirectory.of(str(tmp_path), "again")
    if way == ALONE:
        assert losses(again) == losses(run)
        assert result(again) == result(run)
    assert losses(again) == pytest.approx(losses(run), rel=CLOSE)
    assert result(again)["metrics"] == pytest.approx(result(run)["metrics"], rel=CLOSE)
    rounded = {"metrics": None, "last_metrics": None}
    assert {**result(again), **rounded} == {**result(run), **rounded}
    assert json.loads((tmp_path / "again" / "recipe.json").read_text()) == run.read_json("recipe.json")
    evaluate.main([str(run), "--scale.num-workers", "0"])
    assert f"{float(best['best']):.4f}" in capsys.readouterr().out


@EACH_WAY
def test_a_sweep_is_extended_by_the_draws_that_a_longer_one_has(way: list[str], tmp_path: Path) -> None:
    short = sweep(tmp_path, *way, "--num-trials", "2")
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "s" / "trials").rglob("*")}
    longer = sweep(tmp_path, *way, "--num-trials", "4")
    assert longer[:2] == short
    assert all(file.stat().st_mtime_ns == written for file, written in files.items())
    whole = sweep(tmp_path, *way, "--num-trials", "4", run="whole")
    assert [settings_of(row) for row in longer] == [settings_of(row) for row in whole]
    for name in ("last", "best"):
        assert [float(row[name]) for row in longer] == pytest.approx([float(row[name]) for row in whole], rel=CLOSE)


def test_asha_stops_the_worse_early_and_resumes_alike(tmp_path: Path) -> None:
    words = [*ALONE, "--scheduler", "asha", "--epochs", "4", "--search-seed", "3"]
    rows = sweep(tmp_path, *words, "--num-trials", "7")
    steps = [int(row["step"]) for row in rows]
    assert {row["state"] for row in rows} == {"finished", "stopped"}
    assert sum(steps) < 0.7 * 7 * 128
    assert max(steps) == 128
    sweep(tmp_path, *words, "--num-trials", "4", run="parts")
    assert without_seconds(sweep(tmp_path, *words, "--num-trials", "7", run="parts")) == without_seconds(rows)


def test_a_trial_that_was_killed_after_its_last_checkpoint_is_finished(tmp_path: Path) -> None:
    rows = sweep(tmp_path, *ALONE, "--num-trials", "1")
    trial = RunDirectory.of(str(tmp_path / "s"), "trials/0000")
    shutil.copytree(tmp_path / "s" / "best" / "checkpoints", tmp_path / "s" / "trials" / "0000" / "checkpoints")
    stored = trial.read_json("trial.json")
    assert stored is not None
    trial.write_json("trial.json", {**stored, "state": "running"})
    Path(trial.uri, "result.json").unlink()
    assert without_seconds(sweep(tmp_path, *ALONE, "--num-trials", "1")) == without_seconds(rows)
    assert rows[0]["state"] == "finished"


@EACH_WAY
def test_a_trial_that_raises_is_recorded_and_the_others_continue(
    way: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Parabola.build_model

    def build_or_raise(recipe: Parabola) -> torch.nn.Module:
        if recipe.optim.name == "momentum":
            raise OSError("no room\nfor a model")
        return build(recipe)

    monkeypatch.setattr(Parabola, "build_model", build_or_raise)
    rows = sweep(tmp_path, *way, "--num-trials", "4")
    assert {(row["optim.name"] == "momentum", row["state"], row["error"]) for row in rows} == {
        (True, "failed", "OSError: no room"),
        (False, "finished", ""),
    }
    assert "1 failed; the first: trial 0: OSError: no room" in capsys.readouterr().out
    assert "build_or_raise" in (tmp_path / "s" / "trials" / "0000" / "error.log").read_text()
    # What failed is not tried again.
    assert sweep(tmp_path, *way, "--num-trials", "4") == rows


@EACH_WAY
def test_a_trial_that_diverges_fails_alone(way: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space(recipe="parabola", parameters={"optim.lr": ray_tune.grid_search([1e9, 0.1])}, search="grid")
    space_here(monkeypatch, space)
    rows = sweep(tmp_path, *way, "--optim.name", "sgd", space="optimizers")
    assert [row["state"] for row in rows] == ["failed", "finished"]
    assert "not finite" in rows[0]["error"] or "nan" in rows[0]["error"] or "inf" in rows[0]["error"]


def test_what_cannot_be_packed_is_trained_alone_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sweep(tmp_path, "--num-trials", "2", "--on-nan", "skip")
    assert "not packed: --on-nan skip leaves out steps of one trial and not of the others\n" in capsys.readouterr().out
    assert [row["state"] for row in rows] == ["finished", "finished"]
    with pytest.raises(UserError, match="--packed 2: --on-nan skip leaves out"):
        sweep(tmp_path, "--on-nan", "skip", "--packed", "2", run="other")
    assert not (tmp_path / "other").exists()


def test_optuna_draws_the_trials_of_a_pack_once_it_knows_of_the_pack_before(tmp_path: Path) -> None:
    rows = sweep(tmp_path, "--search", "optuna", "--epochs", "1", "--num-trials", "12")
    files = [tmp_path / "s" / "trials" / f"{int(row['trial']):04d}" / "trial.json" for row in rows]
    assert [json.loads(file.read_text())["batch"] for file in files] == [0] * 10 + [10] * 2


def test_packs_of_several_shapes_and_initial_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {
        "hidden": ray_tune.grid_search([(4,), (8, 8)]),
        "init_seed": ray_tune.grid_search([1, 2]),
        "seed": ray_tune.grid_search([0, 5]),
    }
    space_here(monkeypatch, Space(recipe="parabola", parameters=parameters, search="grid"))
    in_packs, alone = sweep(tmp_path), sweep(tmp_path, *ALONE, run="alone")
    assert [settings_of(row) for row in in_packs] == [settings_of(row) for row in alone]
    assert [float(row["best"]) for row in in_packs] == pytest.approx([float(row["best"]) for row in alone], rel=CLOSE)
    assert len({row["best"] for row in alone}) == 8


def space_here(monkeypatch: pytest.MonkeyPatch, space: Space) -> None:
    monkeypatch.setattr(tune, "find_space", lambda _: space)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nosuch"], "there is no space 'nosuch'; there are cifar10, digits"),
        (["--num-trials", "3"], "name a space first"),
        (["optimizers", "--num-trials", "0"], "--num-trials is 0; it must be 1 or more"),
        (["optimizers", "--packed", "0"], "--packed is 0; it must be auto, no, or 1 or more"),
        (["optimizers", "--optim.lr", "0.1"], "--optim.lr: the space optimizers varies it; leave it out"),
        (["optimizers", "--epoch", "3"], "--epoch"),
        (["optimizers", "--scale.max-workers", "3"], "--scale.max-workers is for one run"),
        (["cifar10", "--data.root", "/nowhere"], "CIFAR10 is not in /nowhere"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_made(words: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        tune.main([*words, "--storage", str(tmp_path)] if words[0][0] != "-" else words)
    assert says in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_do_not_go_together_are_refused_with_a_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"optim.name": ray_tune.choice(["sgd", "adam"]), "optim.momentum": ray_tune.uniform(0.1, 0.9)}
    space_here(monkeypatch, Space(recipe="parabola", parameters=parameters))
    with pytest.raises(UserError, match=r"--optim.momentum does not apply to adam.*choices of dictionaries"):
        sweep(tmp_path)


def test_another_sweep_or_a_run_of_that_name_is_refused(tmp_path: Path) -> None:
    sweep(tmp_path, *ALONE, "--num-trials", "1", "--epochs", "1")
    with pytest.raises(UserError, match=r"is a sweep of another recipe \(epochs\) and search; repeat its settings"):
        sweep(tmp_path, *ALONE, "--epochs", "2", "--search", "grid")
    with pytest.raises(UserError, match="is a run; name another"):
        sweep(tmp_path / "s", *ALONE, "--num-trials", "1", run="best")


def test_sweeps_are_among_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path, *ALONE, "--num-trials", "2", "--epochs", "1")
    (summary,) = list_runs(str(tmp_path))
    assert (summary.state, summary.step, summary.total_steps, summary.is_sweep) == ("finished", 2, 2, True)
    capsys.readouterr()
    runs.main(["--storage", str(tmp_path)])
    assert re.search(r"^s +finished +2/2 trials +val/rmse 0\.\d+ ", capsys.readouterr().out, re.MULTILINE)


def test_a_sweep_is_not_resumed_with_other_initial_weights(tmp_path: Path) -> None:
    for seed in (1, 2):
        model = Parabola(init_seed=seed).build_model()
        torch.save(model.state_dict(), tmp_path / f"{seed}.pth")
    words = [*ALONE, "--num-trials", "1", "--epochs", "1", "--init-from"]
    sweep(tmp_path, *words, str(tmp_path / "1.pth"))
    with pytest.raises(
        UserError, match=r"is a sweep of another recipe \(init_from\) and source of its initial weights"
    ):
        sweep(tmp_path, *words, str(tmp_path / "2.pth"))
    (tmp_path / "1.pth").write_bytes((tmp_path / "2.pth").read_bytes())
    with pytest.raises(UserError, match="is a sweep of another source of its initial weights"):
        sweep(tmp_path, *words, str(tmp_path / "1.pth"))
    # Its trials have ended, and need the weights no longer.
    (tmp_path / "1.pth").unlink()
    assert len(sweep(tmp_path, *words, str(tmp_path / "1.pth"))) == 1
