"""The models of `table_csv`: they learn, one wild cell changes nothing, and workers change nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import blitz
from blitz.data.csv.tabular import CsvData
from blitz.models.table_models import Layers, TableModelName
from blitz.models.tabular_mlp import TabularMLP
from blitz.optim import ModelOptim, Optim
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, result, train
from tests.test_table_csv import fetched, iris_table, numbers_and_colours, recipe, write


def test_the_model_takes_numbers_or_categories_alone() -> None:
    only_numbers = TabularMLP(numbers=3, codes=(), hidden=(), dropout=0.0, outputs=2)
    assert only_numbers(torch.ones(5, 3), torch.ones(5, 0, dtype=torch.int64)).shape == (5, 2)
    only_categories = TabularMLP(numbers=0, codes=(4, 9), hidden=(6,), dropout=0.5, outputs=1)
    assert only_categories(torch.ones(5, 0), torch.tensor([[3, 8]] * 5)).shape == (5, 1)


def test_one_cell_of_ten_million_changes_neither_the_other_rows_nor_the_accuracy(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 1600))
    rows = [f"{a[i]},{b[i]},{'yes' if a[i] + 0.3 * random.normal() > b[i] else 'no'}" for i in range(1600)]
    clean = write(tmp_path / "clean.csv", "a,b,y", *rows)
    dirty = write(tmp_path / "dirty.csv", "a,b,y", "1e7,0.1,no", *rows[1:])
    small: Any = {"val_fraction": 0.25, "epochs": 5, "model": Layers(members=2, hidden=(16,)), "global_batch_size": 64}
    accuracy, numbers = {}, {}
    for table in (clean, dirty):
        fitted = recipe(tmp_path, table, **small).fitted()
        numbers[table] = fetched(fitted, "val", 400)["numbers"]
        accuracy[table] = result(train(fitted, tmp_path / table.stem))["metrics"]["val/accuracy"]
    # A sample quantile moves by no more than to the next of 1,200 numbers.
    torch.testing.assert_close(numbers[dirty], numbers[clean], atol=0.01, rtol=0)
    assert accuracy[clean] > 0.85
    assert abs(accuracy[dirty] - accuracy[clean]) <= 0.01


@pytest.mark.parametrize("target", ["y", "colour"])
@pytest.mark.parametrize("name", get_args(TableModelName))
def test_every_model_learns_classes_and_numbers(name: TableModelName, target: str, tmp_path: Path) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=400, noise=0.1)
    small: Any = {"model": Layers(name, hidden=(32, 32), members=4), "epochs": 20, "global_batch_size": 32}
    metrics = result(train(recipe(tmp_path, table, target, val_fraction=0.25, **small), tmp_path / "run"))["metrics"]
    # Red shows in y, which differs by 4 for it; green and blue are alike. So 1/3 + 2/3 · 1/2 is all that can be known.
    assert metrics["val/r2"] > 0.9 if target == "y" else metrics["val/accuracy"] > 0.52


def test_a_plain_optim_is_taken_as_it_is(tmp_path: Path) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=60)
    data, storage = CsvData(train_csv=str(table), target="y", cache=str(tmp_path / "cache")), str(tmp_path)
    run = blitz.train("table_csv", data=data, optim=Optim(lr=0.01), epochs=1, storage=storage, report=False)
    assert run.recipe.optim == ModelOptim(**vars(Optim(lr=0.01)))


def test_settings_that_are_not_given_are_those_of_the_model(tmp_path: Path) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=60)
    tabm, best = recipe(tmp_path, table).fitted(), recipe(tmp_path, table, effort="best").fitted()
    # A value that another model has by default is given as well.
    own = ModelOptim(lr=tabm.optim.lr, name="sgd")
    realmlp = recipe(tmp_path, table, "y", model=Layers("realmlp"), optim=own).fitted()
    assert (tabm.optim.schedule, realmlp.optim.schedule) == ("wsd", "coslog")
    assert (realmlp.optim.lr, realmlp.optim.name) == (tabm.optim.lr, "sgd")
    assert realmlp.fitted() == realmlp
    assert (tabm.model.members, best.model.members) == (8, 32)
    assert tabm.epochs is not None
    assert best.epochs == 2 * tabm.epochs
    given = recipe(tmp_path, table, effort="fast", epochs=7, global_batch_size=9, model=Layers(members=3)).fitted()
    assert given.plan(60, 0).total_steps == 49
    assert given.model.members == 3


def test_values_of_the_optimizer_are_checked_before_the_others_are_known() -> None:
    with pytest.raises(ValueError, match=r"--optim.lr is -1.0; it must be above 0"):
        ModelOptim(lr=-1.0)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_rows_and_losses_are_the_same_on_two_workers(tmp_path: Path) -> None:
    # Iris has no categories: a column of a batch may have a width of 0. Dropout draws by rank.
    iris = recipe(tmp_path, iris_table(tmp_path), "species", val_fraction=0.2, epochs=3, log_every_steps=1)
    iris = in_float64(replace(iris, model=replace(iris.model, dropout=0.0), global_batch_size=25))
    here, on_ray = train(iris, tmp_path / "here"), train(iris, tmp_path / "on_ray", num_workers=2)
    assert result(on_ray)["rows_digest"] == result(here)["rows_digest"]
    assert len(losses(here)) == 15
    assert losses(on_ray) == pytest.approx(losses(here), rel=TOLERANCE)
    assert result(on_ray)["metrics"]["val/accuracy"] == result(here)["metrics"]["val/accuracy"]
