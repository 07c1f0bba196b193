"""The commands as a user calls them, in this process: what they print, and how they refuse."""

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

from blitz.cli import command_line, evaluate, prepare, train
from blitz.recipe import Batch
from blitz.recipes import recipe_names
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from tests.running import result, same_bits, weights

QUICK = ["--max-train-rows", "64", "--max-eval-rows", "40", "--epochs", "1"]


@dataclass(frozen=True)
class Called:
    """What a command left with and printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Called]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run a command as `python -m` would, in an empty folder and without a cluster."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(module: Any, *words: str) -> Called:
        monkeypatch.setattr(sys, "argv", ["command", *words])
        with pytest.raises(SystemExit) as leaving:
            command_line.run(module.main, list(words))
        printed = capsys.readouterr()
        return Called(int(leaving.value.code or 0), printed.out, printed.err)

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nosuch"], "there is no recipe 'nosuch'; there are blobs, cifar10"),
        ([], "name a recipe first"),
        (["--epochs", "3", "digits"], "name a recipe first"),
        (["digits", "--optim.lrr", "3"], "--optim.lrr, 3; perhaps --optim.lr"),
        (["digits", "--epochs", "many"], "--epochs is 'many'; it must be a whole number; see"),
        (["digits", "--optim.lr", "1,5"], "--optim.lr is '1,5'; it must be a number; see"),
        (["digits", "--scale.num-workers", "two"], "--scale.num-workers is 'two'; it must be auto or a whole number;"),
        (["digits", "--no-reprot"], "--no-reprot; perhaps --report; see"),
        (["digits", "--run", "../mine"], "--run is '../mine'; it must be a name without '/'"),
        (["digits", "--optim.name", "sdg"], "'sdg' for argument '--optim.name'. Expected one of ('sgd', 'momentum'"),
        (["digits", "--global-batch-size", "0"], "--global-batch-size is 0; it must be at least 1"),
        (["digits", "--optim.betas", "0.9", "1.5"], "--optim.betas holds 1.5; it must be in [0, 1)"),
        (["digits", "--seed", "-3"], "--seed is -3; it must be in [0, 2^63)"),
        (["digits", "--optim.lr", "-1"], "--optim.lr is -1.0; it must be above 0"),
        (["digits", "--checkpoint.keep", "0"], "--checkpoint.keep is 0; it must be at least 1"),
        (["digits", "--checkpoint.every-seconds", "0"], "--checkpoint.every-seconds is 0.0; it must be above 0"),
        (["digits", "--scale.num-workers", "-1"], "--scale.num-workers is -1; it must be auto, 0 or more"),
        (["digits", "--scale.num-workers", "1000"], "--scale.num-workers is 1000, and the cluster has"),
        (["digits", "--scale.cpus-per-worker", "0"], "--scale.cpus-per-worker is 0.0; it must be above 0"),
        (["cifar10", "--data.root", "/nowhere"], "CIFAR10 is not in /nowhere"),
        (["mnist", "--data.root", "/nowhere"], "name the folder with --data.root DIR, or add --data.download"),
        (["digits", "--storage", "/dev/null"], "--storage: /dev/null/"),
        (["digits", "--storage", "nosuch://bucket"], "nosuch://bucket/"),
        (["digits", "--resume", "must", "--run", "none"], "none has no checkpoint; start with --resume auto"),
    ],
)
def test_a_mistake_is_reported_in_one_line_with_exit_code_2(words: list[str], says: str, call: Call) -> None:
    called = call(train, *words)
    assert called.code == 2
    assert says in called.err
    assert called.err.count("\n") == 1
    assert "Traceback" not in called.err
    assert called.out == ""


@pytest.mark.parametrize("recipe", recipe_names())
def test_help_names_every_kind_of_flag(recipe: str, call: Call) -> None:
    called = call(train, recipe, "--help")
    flags = ["--run", "--storage", "--seed", "--epochs", "--global-batch-size", "--micro-batch-size", "--optim.name"]
    flags += ["--optim.lr", "--optim.momentum", "--scale.num-workers", "--scale.use-gpu", "--resume", "--compile"]
    assert called.code == 0
    assert [flag for flag in flags if flag not in called.out] == []


def test_help_without_a_recipe_names_the_recipes(call: Call) -> None:
    called = call(train, "--help")
    assert called.code == 0
    assert f"Recipes: {', '.join(recipe_names())}" in called.out


def test_a_run_is_trained_found_again_continued_and_evaluated(call: Call, tmp_path: Path) -> None:
    first = call(train, "digits", *QUICK)
    (run,) = (tmp_path / "runs").iterdir()
    assert first.code == 0
    assert first.out.startswith(f"run: {run}\n")
    assert "val/accuracy" in first.out

    assert "It is finished" in call(train, "digits", *QUICK).out

    longer = call(train, "digits", *QUICK[:-1], "3", "--resume", "must", "--optim.schedule-epochs", "3")
    assert "continues from step 2 of 6" in longer.out
    assert result(RunDirectory(str(run)))["steps"] == 6

    shorter = call(train, "digits", *QUICK)
    assert shorter.code == 2
    assert "has already trained for 6 steps" in shorter.err

    evaluated = call(evaluate, run.name, "--checkpoint", "last")
    assert evaluated.code == 0
    assert "confusion matrix" in evaluated.out
    written = json.loads((run / "evaluations" / "val-6.json").read_text())
    assert sum(map(sum, written["sums"]["confusion"])) == written["sums"]["rows"] == 40
    beside = {file.name.partition(".")[2] for file in (run / "evaluations").iterdir()}
    assert beside == {"json", "classes.csv", "confusion.csv"}
    trained = result(RunDirectory(str(run)))["metrics"]["val/accuracy"]
    assert written["figures"]["accuracy"] == pytest.approx(trained)

    on_train = call(evaluate, run.name, "--split", "train", "--max-eval-rows", "64")
    assert "64 rows of train" in on_train.out


def test_a_run_that_is_to_be_continued_follows_the_schedule_of_its_whole_length(call: Call) -> None:
    planned = ["digits", *QUICK[:-2], "--optim.schedule-epochs", "3", "--run", "planned", "--epochs"]
    assert call(train, *planned, "1").code == 0
    again = call(train, *planned, "3")
    assert "continues from step 2 of 6" in again.out
    assert "schedule" not in again.out
    assert call(train, "digits", *QUICK[:-1], "3", "--run", "whole").code == 0
    runs = [RunDirectory.of("runs", name) for name in ("planned", "whole")]
    assert same_bits(*(weights(run) for run in runs))


def test_a_schedule_of_another_length_must_be_asked_for_and_is_said(call: Call, tmp_path: Path) -> None:
    named = ["digits", *QUICK[:-2], "--optim.warmup-steps", "0", "--log-every-steps", "1", "--run", "mine"]
    one, three = [*named, "--epochs", "1"], [*named, "--epochs", "3"]
    assert call(train, *one).code == 0
    folder = tmp_path / "runs" / "mine"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "raise --epochs and --optim.schedule-epochs" in call(train, *one).out

    refused = call(train, *three)
    assert refused.code == 2
    assert "is at step 2 of a cosine schedule over 6 steps, before over 2: its learning rate would jump" in refused.err
    assert "--optim.schedule-epochs 3" in refused.err
    assert refused.err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    short = call(train, *three, "--optim.schedule-epochs", "2")
    assert "--optim.schedule-epochs 2.0 ends at step 4 of 6" in short.err

    longer = call(train, *three, "--optim.schedule-epochs", "3")
    assert "from here on: cosine schedule over 6 steps, before over 2\n" in longer.out
    rates = [line["lr"] for line in RunDirectory(str(folder)).metrics() if "lr" in line]
    peak = 0.003
    of_two = [peak * (1 + math.cos(math.pi * step / 2)) / 2 for step in range(2)]
    of_six = [peak * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(2, 6)]
    assert rates == pytest.approx(of_two + of_six)
    change = "schedule changed at step 2: cosine schedule over 6 steps, before over 2"
    assert change in (folder / "report.html").read_text()


def test_another_setting_is_another_run_and_under_one_name_it_is_refused(call: Call, tmp_path: Path) -> None:
    named = ["digits", *QUICK, "--run", "mine"]
    assert call(train, *named).code == 0
    before = (tmp_path / "runs" / "mine" / "recipe.json").read_bytes()
    changed = call(train, *named, "--optim.lr", "0.5", "--seed", "3")
    assert changed.code == 2
    assert "other settings: seed (was 0, is 3), optim.lr (was 0.003, is 0.5)" in changed.err
    assert (tmp_path / "runs" / "mine" / "recipe.json").read_bytes() == before
    anew = call(train, *named, "--resume", "never")
    assert anew.code == 2
    assert "name another with --run" in anew.err

    for flags in (["--seed", "1"], ["--seed", "2"], ["--seed", "2", "--resume", "never"]):
        assert call(train, "digits", *QUICK, *flags).code == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(names) == 4
    assert sum(name.endswith("-2") for name in names) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a run first"),
        (["nosuch"], "there is no run in"),
        (["runs/mine", "--checkpoint", "77"], "no whole checkpoint of step 77; there are: 2"),
        (["runs/mine", "--optim.lr", "7"], "was trained with other settings: optim.lr"),
        (["runs/mine", "--split", "all"], "'all' for argument '--split'"),
    ],
)
def test_evaluate_refuses_in_one_line(words: list[str], says: str, call: Call) -> None:
    assert call(train, "digits", *QUICK, "--run", "mine").code == 0
    called = call(evaluate, *words)
    assert called.code == 2
    assert says in called.err
    assert called.err.count("\n") == 1


def test_a_name_that_is_none_says_which_there_are(call: Call) -> None:
    assert "blitz runs --storage" in call(evaluate, "nosuch").err
    Path("runs/swept").mkdir(parents=True)
    Path("runs/swept/sweep.json").write_text("{}")
    assert "swept is a sweep; name its best run, " in call(evaluate, "swept").err


def test_a_storage_that_does_not_answer_is_reported_in_one_line(call: Call) -> None:
    with socket.socket() as closed:
        # Bound and not listening: nothing else can answer there.
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        called = call(evaluate, f"s3://anonymous@bucket/run?scheme=http&endpoint_override=127.0.0.1:{port}")
    assert called.code == 2
    assert "cannot be read (" in called.err
    assert called.err.count("\n") == 1


def test_a_pipe_whose_reader_has_left_ends_a_command_silently(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "blitz", "runs", "--help"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, cwd=tmp_path)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_terminal_that_knows_only_ascii_is_no_reason_to_fail(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "blitz", "train", "digits", "--help"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=ascii_only)
    assert done.returncode == 0
    assert b"--optim.lr" in done.stdout


def test_our_own_bug_leaves_its_trace_in_a_file(call: Call) -> None:
    class Broken:
        @staticmethod
        def main(words: list[str]) -> None:
            raise KeyError("a key")

    called = call(Broken)
    assert called.code == 1
    line = called.err.strip()
    assert line.startswith("failed: KeyError: 'a key' (test_command_line.py:")
    log = Path(line.rpartition(" ")[2])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_a_recipes_own_line_is_named_where_a_library_fails(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(self: Digits, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs[:, :5], batch["targets"], reduction="none")

    monkeypatch.setattr(Digits, "loss", loss)
    called = call(train, "digits", *QUICK)
    assert called.code == 1
    assert "out of bounds. (test_command_line.py:" in called.err
    Path(called.err.strip().rpartition(" ")[2]).unlink()


def test_names_of_classes_and_columns_break_no_line_of_what_is_printed(call: Call, tmp_path: Path) -> None:
    rows = [f'{n},"{("a", "b")[n % 2]}\n\t\x1b[2J\u202e"' for n in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(['x,"la\nbel"', *rows, ""]))
    words = "table_csv --data.train-csv a.csv --data.val-fraction 0.3 --epochs 1 --run mine --data.target"
    called = [
        call(prepare, "a.csv", "--label-column", "la\nbel"),
        call(train, *words.split(), "la\nbel"),
        call(evaluate, "mine"),
        call(evaluate, "mine", "--data.train-csv", "no\x1b[2Jsuch.csv"),
    ]
    assert [each.code for each in called] == [0, 0, 0, 2]
    assert all(line.isprintable() for each in called for line in (each.out + each.err).split("\n"))
    assert "a\\n\\t\\x1b[2J\\u202e" in called[2].out
    page = (tmp_path / "runs" / "mine" / "report.html").read_text()
    assert "\x1b[2J" not in page
    assert "\u202e" not in page


def test_a_second_process_on_a_run_is_refused(call: Call, tmp_path: Path) -> None:
    run = RunDirectory.of(str(tmp_path), "mine")
    run.probe()
    with run.locked():
        called = call(train, "digits", *QUICK, "--run", "mine", "--storage", str(tmp_path))
    assert called.code == 2
    assert "another process is training" in called.err
    assert call(train, "digits", *QUICK, "--run", "mine", "--storage", str(tmp_path)).code == 0


def test_a_refused_command_leaves_the_run_as_it_was(call: Call, tmp_path: Path) -> None:
    named = ["digits", *QUICK, "--run", "mine"]
    assert call(train, *named, "--max-steps", "2").code == 0
    before = (tmp_path / "runs" / "mine" / "recipe.json").read_bytes()
    assert call(train, *named, "--max-steps", "1").code == 2
    assert (tmp_path / "runs" / "mine" / "recipe.json").read_bytes() == before


def test_a_run_in_this_process_never_imports_ray(tmp_path: Path) -> None:
    words = ["digits", *QUICK, "--storage", str(tmp_path), "--scale.num-workers", "0"]
    program = (
        "import sys; from blitz.cli.train import main; "
        f"main({words!r}); sys.exit(any(name.split('.')[0] == 'ray' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
