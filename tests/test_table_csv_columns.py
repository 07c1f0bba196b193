"""Columns of a table that are identifiers, constant, or written otherwise than in the training CSV."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from blitz.errors import DataError
from blitz.recipes import recipe_from_json, recipe_to_json
from tests.test_table_csv import fetched, recipe, write


def test_identifiers_are_predicted_as_they_stand(tmp_path: Path) -> None:
    """One `NA` among them, a zip code of a leading zero, and 19 digits that float64 would merge."""
    ids = ("1582218195625938945", "1582218195625938946", "01234")
    table = write(tmp_path / "a.csv", "a,id", *(f"{i},{ids[i % 3]}" for i in range(60)), "60,NA")
    fitted = recipe(tmp_path, table, "id", bad_rows="skip", max_bad_fraction=0.1).fitted()
    assert set(fitted.fit.target.classes) == set(ids)
    assert recipe_from_json(json.loads(json.dumps(recipe_to_json(fitted)))) == fitted
    targets = fitted.dataset("train").__getitems__(np.arange(60))["targets"]
    assert [fitted.fit.target.classes[target] for target in targets] == [ids[i % 3] for i in range(60)]
    outputs = torch.nn.functional.one_hot(torch.tensor([0, 1, 2]), 3).float()
    assert fitted.predictions(outputs, {})["prediction"] == [*fitted.fit.target.classes]


@pytest.mark.parametrize("constant", ["0.1", "1e-300", "-3e30", "0"])
def test_a_constant_column_is_left_out_and_named(
    constant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """250 sums of 0.1 have a standard deviation of 1e-17, by which no one should divide."""
    rows = (f"{constant},{i % 7},same,{'ab'[i % 2]}" for i in range(250))
    fitted = recipe(tmp_path, write(tmp_path / "a.csv", "c,x,w,y", *rows)).fitted()
    assert [*(one.name for one in fitted.fit.numbers), *(one.name for one in fitted.fit.categories)] == ["x"]
    assert "not learned from, because they are the same in all rows: c, w" in capsys.readouterr().out


def test_numbers_that_differ_by_their_rounding_are_constant_and_large_ones_that_do_by_more_are_not(
    tmp_path: Path,
) -> None:
    rows = (f"{0.1 + 0.2 if i % 2 else 0.3!r},{1.6e9 + i},{'ab'[i % 2]}" for i in range(50))
    fitted = recipe(tmp_path, write(tmp_path / "a.csv", "c,time,y", *rows)).fitted()
    assert [feature.name for feature in fitted.fit.numbers] == ["time"]
    with pytest.raises(DataError, match=r"column 'c' holds .* in all rows to train on"):
        recipe(tmp_path, tmp_path / "a.csv", "c", task="regression").fitted()


def test_of_a_constant_only_where_it_is_missing_is_learned_from(tmp_path: Path) -> None:
    rows = (f"{'' if i % 2 else 1},{'ab'[i % 2]}" for i in range(20))
    table = write(tmp_path / "a.csv", "c,y", *rows)
    val = write(tmp_path / "b.csv", "c,y", "1e6,a", ",b")
    fitted = recipe(tmp_path, table, val_csv=str(val)).fitted()
    assert fetched(fitted, "val", 2)["numbers"].abs().tolist() == [[pytest.approx(0, abs=1e-30), 0], [0, 1]]


def test_another_csv_is_read_as_the_one_that_was_trained_on_where_its_cells_do_not_show_how(tmp_path: Path) -> None:
    rows = (f"{i},5;{'NA' if i % 2 else 'DE'};{'ab'[i % 2]}" for i in range(40))
    table = write(tmp_path / "a.csv", "x;land;y", *rows)
    val = write(tmp_path / "b.csv", "x;land;y", "1.234;NA;a", "12;DE;b")
    fitted = recipe(tmp_path, table, val_csv=str(val)).fitted()
    columns = fitted.dataset("val").__getitems__(np.arange(2))
    assert columns["numbers"].tolist() == [[1234], [12]]
    assert columns["categories"].tolist() == [[2], [1]]
