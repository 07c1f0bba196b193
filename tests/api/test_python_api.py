# mypy: disable-error-code="arg-type"
# Settings by dotted names, and arguments of wrong types on purpose.
"""What `import blitz` gives: train, look at, evaluate, predict, export, open, list, tune."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from ray import tune
from torch import nn

import blitz
from blitz.data.digits_images import digits
from blitz.recipes.digits import Digits

train: Any = blitz.train
"""Dotted flags as keywords, and wrong types, are none that its signature has."""


@dataclass(frozen=True)
class SmallDigits(Digits):
    """Digits on few rows."""

    epochs: int = 2
    max_train_rows: int | None = 96


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where runs lie."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> blitz.Run:
    """A run of a recipe object, read by the tests below."""
    storage = tmp_path_factory.mktemp("trained")
    return blitz.train(SmallDigits(optim=blitz.Optim("adam", lr=3e-3)), storage=storage, run="first")


def test_a_recipe_that_ships_is_trained_by_its_name_with_its_flags_as_keywords(folder: Path) -> None:
    run = train("digits", epochs=1, max_train_rows=64, **{"optim.lr": 0.002}, report=False)
    assert run.finished
    assert (run.recipe.epochs, run.recipe.optim.lr, run.recipe.optim.name) == (1, 0.002, "adam")
    assert Path(run.uri).parent == folder / "runs"
    # The same call finds the same run; another setting makes another.
    assert train("digits", epochs=1, max_train_rows=64, **{"optim.lr": 0.002}).uri == run.uri
    assert blitz.train(Digits, epochs=1, max_train_rows=64, max_eval_rows=8, seed=1, report=False).uri != run.uri


def test_a_recipe_of_a_file_is_trained_by_its_path(folder: Path) -> None:
    Path("mine_of_the_api.py").write_text(
        "from dataclasses import dataclass\nfrom blitz.recipes.digits import Digits\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(Digits):\n    epochs: int = 1\n    max_train_rows: int | None = 32\n"
    )
    run = blitz.train(Path("mine_of_the_api.py"), report=False)
    assert (run.recipe.name, run.result is not None and run.result["steps"]) == ("mine_of_the_api", 1)


def test_metrics_and_history_are_what_the_run_has_written(trained: blitz.Run) -> None:
    assert {"val/loss", "val/accuracy"} <= trained.metrics.keys()
    history = trained.history
    assert isinstance(history, pyarrow.Table)
    accuracies = [value for value in history["val/accuracy"].to_pylist() if value is not None]
    assert len(accuracies) == 2
    assert accuracies[-1] == trained.metrics["val/accuracy"]
    assert history["step"].to_pylist()[-1] == 6


def test_the_model_is_in_evaluation_mode_with_the_best_weights(trained: blitz.Run) -> None:
    model = trained.model()
    assert isinstance(model, nn.Module)
    assert not model.training
    val = digits("val").columns
    with torch.no_grad():
        outputs = model(torch.from_numpy(val["inputs"]).float() / 16)
    accuracy = (outputs.argmax(1).numpy() == val["targets"]).mean()
    assert accuracy == pytest.approx(max(filter(None, trained.history["val/accuracy"].to_pylist())))
    assert [*trained.model("last").state_dict()] == [*model.state_dict()]


def test_a_run_is_evaluated_and_exported_and_has_a_report(trained: blitz.Run) -> None:
    found = trained.evaluate("val", checkpoint="last")
    assert found["accuracy"] == trained.metrics["val/accuracy"]
    assert Path(trained.report()).name == "report.html"
    exported = torch.export.load(trained.export()).module()
    scores = exported(torch.from_numpy(digits("val").columns["inputs"][:3]))
    assert scores["probabilities"].shape == (3, 10)


def test_a_data_set_is_predicted_for_row_by_row(trained: blitz.Run) -> None:
    found = trained.predict(digits("val"))
    assert found.column_names[:2] == ["prediction", "probability"]
    truth = digits("val").columns["targets"]
    accuracy = np.mean(np.array(found["prediction"].to_pylist(), int) == truth)
    assert accuracy == trained.evaluate()["accuracy"]


def test_a_csv_is_predicted_for_where_the_recipe_reads_them(folder: Path) -> None:
    random = np.random.default_rng(0)
    with Path("rows.csv").open("w") as file:
        lines = csv.writer(file)
        lines.writerow(["x", "group"])
        lines.writerows([f"{x:.3f}", "high" if x > 0.5 else "low"] for x in random.random(60))
    options = {"data.train_csv": "rows.csv", "data.target": "group", "data.val_fraction": 0.2}
    run = train("table_csv", epochs=1, **options, report=False)
    predicted = run.predict("rows.csv")
    assert predicted.column_names[:2] == ["x", "group"]
    assert {*predicted["prediction"].to_pylist()} <= {"high", "low"}
    run.predict("rows.csv", "kept.csv")
    assert len(Path("kept.csv").read_text().splitlines()) == 61


def test_a_run_is_opened_and_listed_as_it_was_trained(trained: blitz.Run) -> None:
    opened = blitz.open(trained.uri)
    assert opened.metrics == trained.metrics
    assert [run.name for run in blitz.runs(Path(trained.uri).parent)] == ["first"]
    assert (opened.name, opened.finished) == ("first", True)
    assert "val/accuracy" in repr(opened)
    assert "<svg" in opened._repr_html_()
    assert "val/accuracy" in opened._repr_html_()
    for recipe in (opened.recipe, trained.recipe):
        assert recipe == SmallDigits(optim=blitz.Optim("adam", lr=3e-3))


def test_a_space_is_tuned_and_its_best_trial_is_a_run(tmp_path: Path) -> None:
    space = blitz.Space(
        SmallDigits,
        {"optim.lr": tune.choice([0.001, 0.01])},
        metric="val/loss",
        mode="min",
        overrides={"epochs": 1, "max_train_rows": 32, "max_eval_rows": 32},
        search="grid",
    )
    sweep = blitz.tune(space, num_trials=2, storage=tmp_path, report=False, seed=1)
    assert [trial.settings["optim.lr"] for trial in sweep.trials] == [0.001, 0.01]
    assert sweep.best is not None
    best = min(sweep.trials, key=lambda trial: trial.best or math.inf)
    assert sweep.best_settings == best.settings
    assert sweep.best.recipe.optim.lr == best.settings["optim.lr"]
    assert "2 trials" in repr(sweep)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: train("digits", epoch=5), "Digits has no setting 'epoch'; perhaps epochs"),
        (lambda: train("digits", **{"optim.lrr": 5}), "Digits has no setting 'optim.lrr'; perhaps optim.lr"),
        (lambda: train("digits", model=nn.Identity), "model=: a recipe has its own; give either"),
        (lambda: train("digit"), "there is no recipe 'digit'"),
        (lambda: train(), "name a recipe, or give model=, train= and loss="),
        (lambda: train("digits", num_workers=2, scale=blitz.Scale()), "pass num_workers in it"),
        (lambda: train("digits", epochs=0), "epochs is 0; it must be at least 1"),
        (lambda: train("digits", epochs="5"), "epochs is '5'; it must be int"),
        (lambda: train("digits", optim="adam"), "optim is 'adam'; it must be a blitz.Optim"),
        (lambda: train("digits", resume="no"), "resume is 'no'; it must be 'never' or 'auto' or 'must'"),
        (lambda: train("digits", use_gpu=True), "use_gpu is True; it must be 'auto' or 'yes' or 'no'"),
        (lambda: train(3), "recipe is int; give a name, a file, or a blitz.Recipe"),
        (lambda: blitz.open("nowhere"), "there is no run in .*nowhere"),
    ],
)
def test_a_call_that_cannot_be_meant_is_one_line_before_anything_starts(call: object, says: str, folder: Path) -> None:
    assert callable(call)
    with pytest.raises(blitz.UserError, match=says) as refused:
        call()
    assert "\n" not in str(refused.value)
    assert not (folder / "runs").exists()
