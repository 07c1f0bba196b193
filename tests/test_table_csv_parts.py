"""Rows of a table that are tested on: what sees them, and when."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blitz
from blitz.api.train_run import TrainSettings, train_run
from blitz.cli.train import main as train_command
from blitz.data.csv.tabular import CsvRows
from blitz.data.plan import Split
from blitz.errors import UserError
from blitz.recipe import Recipe
from blitz.recipes.table_csv import TableCsv
from tests.test_table_csv import numbers_and_colours, recipe


def lines_of(fitted: Recipe, split: Split) -> set[int]:
    rows = fitted.dataset(split)
    assert isinstance(rows, CsvRows)
    return set(rows.table.lines(np.arange(len(rows))).tolist())


def settings(folder: Path, made: TableCsv) -> TrainSettings:
    return TrainSettings(made, run="run", storage=str(folder), report=False)


def small(folder: Path, **more: Any) -> TableCsv:
    table = numbers_and_colours(folder / "table.csv", rows=200)
    return recipe(folder, table, val_fraction=0.2, epochs=2, global_batch_size=32, **more)


def test_a_run_ends_with_the_test_rows_as_blitz_evaluate_finds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = small(tmp_path, test_fraction=0.1, split="random")
    trained = train_run(settings(tmp_path, made))
    parts: list[Split] = ["train", "val", "test"]
    train, val, test = (lines_of(trained.recipe, split) for split in parts)
    assert (len(train), len(val), len(test), len(train | val | test)) == (140, 40, 20, 200)
    found = blitz.open(tmp_path / "run").evaluate("test")
    assert trained.result["test_metrics"] == {f"test/{name}": value for name, value in found.items()}
    # Nothing of a curve, and so no checkpoint, depends on them.
    assert not any("test" in name for line in trained.run.metrics() for name in line)
    capsys.readouterr()
    words = ["table_csv", "--data.target", "y", "--data.val-fraction", "0.2", "--data.test-fraction", "0.1"]
    folders = ["--storage", str(tmp_path), "--data.cache", str(tmp_path / "cache")]
    train_command(
        [*words, "--data.train-csv", str(tmp_path / "table.csv"), "--run", "other", "--epochs", "1", *folders]
    )
    assert "test/rmse  " in capsys.readouterr().out


def test_a_finished_run_that_is_given_a_csv_to_test_on_is_tested(tmp_path: Path) -> None:
    made = small(tmp_path)
    assert "test_metrics" not in train_run(settings(tmp_path, made)).result
    with pytest.raises(UserError, match="has no such rows"):
        blitz.open(tmp_path / "run").evaluate("test")
    other = numbers_and_colours(tmp_path / "test.csv", rows=30)
    again = train_run(settings(tmp_path, replace(made, data=replace(made.data, test_csv=str(other)))))
    assert again.result["test_metrics"]["test/rmse"] > 0
    assert len(again.recipe.dataset("test")) == 30


def test_the_column_of_groups_is_not_learned_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = small(tmp_path, split="group:colour").fitted()
    assert [one.name for one in fitted.fit.numbers] == ["a", "b"]
    assert not fitted.fit.categories
    assert "not learned from, because rows are split by its groups: colour" in capsys.readouterr().out


def test_two_ways_to_test_and_a_split_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two ways to test"):
        small(tmp_path, test_fraction=0.1, test_csv="other.csv").fitted()
    nothing = recipe(tmp_path, tmp_path / "table.csv", split="time:a")
    with pytest.raises(UserError, match=r"--data\.split time:a is for"):
        nothing.fitted()
