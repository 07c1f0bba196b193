"""Cross-validation of a table: one model a fold, trained as one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import blitz
from blitz.api.train_run import Trained, TrainSettings, train_run
from blitz.errors import UserError
from blitz.models.folds import Folds
from blitz.models.table_models import Layers
from blitz.optim import Optim
from blitz.recipes.table_csv import TableCsv
from tests.running import result, same_bits, train, weights
from tests.test_table_csv import numbers_and_colours, recipe

FOLDS = 3


def made(folder: Path, *, rows: int = 150, noise: float = 0.5, **settings: Any) -> TableCsv:
    table = numbers_and_colours(folder / "table.csv", rows=rows, noise=noise)
    return recipe(folder, table, **{"folds": FOLDS, "epochs": 2, "global_batch_size": 50, **settings})


def trained(folder: Path, recipe: TableCsv) -> Trained:
    return train_run(TrainSettings(recipe, run="run", storage=str(folder), report=False))


def test_every_row_is_trained_on_and_evaluated_on_and_held_out_by_one_model(tmp_path: Path) -> None:
    fitted = made(tmp_path, test_fraction=0.2).fitted()
    train_rows, val_rows, test_rows = (fitted.dataset(split) for split in ("train", "val", "test"))
    assert (len(train_rows), len(val_rows), len(test_rows)) == (120, 120, 30)
    folds = train_rows.__getitems__(np.arange(120))["fold"]
    assert np.bincount(folds).tolist() == [40, 40, 40]
    assert (val_rows.__getitems__(np.arange(120))["fold"] == folds).all()
    assert "fold" not in test_rows.__getitems__(np.arange(3))


@pytest.mark.parametrize("name", ["mlp", "tabm", "realmlp"])
def test_a_row_gives_no_gradient_to_the_model_of_its_fold_and_the_others_that_of_their_own_loss(
    tmp_path: Path, name: Any
) -> None:
    fitted = replace(made(tmp_path), model=Layers(name=name, dropout=0.0)).fitted()
    columns = {key: torch.from_numpy(one) for key, one in fitted.dataset("train").__getitems__(np.arange(30)).items()}
    rows = fitted.preprocess({key: one[columns["fold"] == 1] for key, one in columns.items()})
    model = fitted.build_model().train()
    assert isinstance(model, Folds)
    fitted.loss(fitted.forward(model, rows), rows).sum().backward()
    first, held_out, _ = model.models
    assert all(one.grad is None or not one.grad.any() for one in held_out.parameters())
    found = [one.grad.clone() for one in first.parameters() if one.grad is not None]
    model.zero_grad()
    alone = replace(fitted, data=replace(fitted.data, folds=None))
    (alone.loss(alone.forward(first, rows), rows).sum() / 2).backward()
    # Its share of the mean over three models of which two are trained on the row, whose weights are 3/2.
    expected = [one.grad for one in first.parameters() if one.grad is not None]
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(found, expected, strict=True))


def test_metrics_are_those_of_rows_that_a_model_has_not_seen(tmp_path: Path) -> None:
    # The target is noise alone: a model that has seen a row knows its target, and one that has not does not.
    random = np.random.default_rng(0)
    table = tmp_path / "noise.csv"
    table.write_text("\n".join(["a,b,y", *(f"{a},{b},{y}" for a, b, y in random.normal(size=(60, 3))), ""]))
    noise = recipe(tmp_path, table, folds=FOLDS, epochs=150, global_batch_size=60)
    metrics = trained(tmp_path, noise).result["last_metrics"]
    assert metrics["val/r2"] < 0.05
    predicted = blitz.open(tmp_path / "run").predict(table, checkpoint="last")["prediction"].to_numpy()
    truth = np.loadtxt(table, delimiter=",", skiprows=1)[:, 2]
    assert np.corrcoef(predicted, truth)[0, 1] > 0.3


def test_predictions_and_the_artifact_are_the_average_of_the_models(tmp_path: Path) -> None:
    trained(tmp_path, made(tmp_path))
    run = blitz.open(tmp_path / "run")
    rows = run.recipe.inputs(str(tmp_path / "table.csv")).__getitems__(np.arange(5))
    columns = {name: torch.from_numpy(one) for name, one in rows.items()}
    model, batch = run.model(), run.recipe.preprocess(columns)
    assert isinstance(model, Folds)
    each = [one(batch["numbers"], batch["categories"]) for one in model.models]
    assert isinstance(run.recipe, TableCsv)
    mean = run.recipe.fit.target.undone(torch.stack(each).mean(0)).flatten().tolist()
    predicted = run.predict(tmp_path / "table.csv")["prediction"].to_pylist()[:5]
    assert predicted == pytest.approx(mean, rel=1e-5)
    module = torch.export.load(run.export()).module()
    deployed = module(columns["numbers"], columns["categories"])["prediction"].tolist()
    assert deployed == pytest.approx(mean, rel=1e-5)


def test_a_run_of_folds_resumes_with_the_same_bits(tmp_path: Path) -> None:
    # Of a schedule that does not depend on the number of steps.
    steady = made(tmp_path, optim=Optim(name="adamw", lr=1e-3, schedule="constant"))
    whole = train(steady, tmp_path / "whole")
    train(replace(steady, max_steps=4), tmp_path / "parts")
    parts = train(steady, tmp_path / "parts")
    assert same_bits(weights(whole), weights(parts))
    assert result(whole)["rows_digest"] == result(parts)["rows_digest"]


def test_groups_are_not_divided_and_folds_have_no_other_rows_to_evaluate_on(tmp_path: Path) -> None:
    fitted = made(tmp_path, split="group:colour").fitted()
    rows = fitted.dataset("train")
    folds = rows.__getitems__(np.arange(len(rows)))["fold"]
    lines = (tmp_path / "table.csv").read_text().splitlines()
    colours = [lines[line - 1].split(",")[2] for line in rows.table.lines(np.arange(len(rows)))]
    assert len({*zip(folds.tolist(), colours, strict=True)}) == FOLDS
    for settings, message in (
        ({"val_fraction": 0.2}, "leave out --data.val-csv"),
        ({"split": "time:a"}, "folds have no order"),
        ({"folds": 1}, "must be at least 2"),
    ):
        with pytest.raises(UserError, match=message):
            made(tmp_path, **settings).fitted()
