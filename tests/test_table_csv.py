"""Any CSV: metrics beside those of scikit-learn on the same rows, and what is made of cells that are not as hoped."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from blitz.cli.evaluate import main as evaluate
from blitz.cli.train import main as train_command
from blitz.data.csv.tabular import CsvData
from blitz.data.plan import Split
from blitz.errors import DataError, UserError
from blitz.outputs.metrics import Regression
from blitz.recipe import Batch
from blitz.recipes import recipe_from_json, recipe_to_json
from blitz.recipes.table_csv import TableCsv
from blitz.settings import differences
from tests.running import result, same_bits, train, weights

WORDS = ("red", "green", "blue")


def recipe(folder: Path, csv: Path | str, target: str = "y", **settings: Any) -> TableCsv:
    """The recipe on a CSV; `settings` of the data are given by their names there."""
    of_data = {name: settings.pop(name) for name in [*settings] if name in CsvData.__dataclass_fields__}
    data = CsvData(train_csv=str(csv), target=target, cache=str(folder / "cache"), **of_data)
    return TableCsv(data=data, **settings)


def write(file: Path, header: str, *rows: str) -> Path:
    file.write_text("\n".join([header, *rows, ""]))
    return file


def fetched(fitted: TableCsv, split: Split, rows: int) -> Batch:
    """The first rows of a split as the model takes them."""
    columns = fitted.dataset(split).__getitems__(np.arange(rows))
    return fitted.preprocess({name: torch.from_numpy(column) for name, column in columns.items()})


def numbers_and_colours(file: Path, *, rows: int = 600, noise: float = 0.5) -> Path:
    """y = 40 + 3 a - 2 b + 4 if red, with noise; it has a variance of 13 + 32 / 9 without."""
    random = np.random.default_rng(0)
    a, b, error = random.normal(size=(3, rows))
    colours = random.choice(WORDS, rows)
    y = 40 + 3 * a - 2 * b + 4 * (colours == "red") + noise * error
    return write(file, "a,b,colour,y", *(f"{a[i]},{b[i]},{colours[i]},{y[i]}" for i in range(rows)))


def split_of(table: Path, trained: TableCsv) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The rows of both splits, as they stand in the CSV."""
    with table.open() as file:
        lines = list(csv.DictReader(file))
    parts = [trained.dataset(split) for split in ("train", "val")]
    train_rows, val_rows = ([lines[line - 2] for line in part.table.lines(np.arange(len(part)))] for part in parts)
    assert len(train_rows) + len(val_rows) == len(lines)
    return train_rows, val_rows


def test_titanic_is_as_good_as_gradient_boosting_and_logistic_regression(test_data: Path, tmp_path: Path) -> None:
    table = test_data / "tabular" / "titanic.csv"
    settings: Any = {"val_fraction": 0.3, "ignore": ("alive",), "epochs": 15}
    fitted = recipe(tmp_path, table, "survived", **settings).fitted()
    assert fitted.fit.target.classes == ("0", "1")
    assert [feature.name for feature in fitted.fit.numbers] == ["pclass", "age", "sibsp", "parch", "fare"]
    train_rows, val_rows = split_of(table, fitted)
    numbers = [feature.name for feature in fitted.fit.numbers]
    words = [feature.name for feature in fitted.fit.categories]

    def cells(rows: list[dict[str, str]]) -> Any:
        return np.array(
            [[*(float(row[n] or "nan") for n in numbers), *(row[w] for w in words)] for row in rows], dtype=object
        )

    truth = [row["survived"] for row in val_rows]
    ours = result(train(fitted, tmp_path / "run"))["metrics"]["val/accuracy"]
    assert ours >= 0.77
    for model in (GradientBoostingClassifier(random_state=0), LogisticRegression()):
        pipeline = make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(), StandardScaler()), list(range(len(numbers)))),
                (
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                    list(range(len(numbers), 5 + len(words))),
                ),
            ),
            model,
        )
        pipeline.fit(cells(train_rows), [row["survived"] for row in train_rows])
        theirs = pipeline.score(cells(val_rows), truth)
        assert ours >= theirs - 0.04


def iris_table(folder: Path) -> Path:
    """Iris as scikit-learn ships it, with the names of its classes."""
    iris = load_iris()
    lines = [
        ",".join([*map(str, row), iris.target_names[kind]]) for row, kind in zip(iris.data, iris.target, strict=True)
    ]
    (folder / "iris.csv").write_text(
        "\n".join(["sepal_length,sepal_width,petal_length,petal_width,species", *lines, ""])
    )
    return folder / "iris.csv"


def test_iris_is_as_good_as_logistic_regression(tmp_path: Path) -> None:
    table = iris_table(tmp_path)
    fitted = recipe(tmp_path, table, "species", val_fraction=0.3).fitted()
    train_rows, val_rows = split_of(table, fitted)
    rows, held_out = (
        [[float(cell) for cell in [*row.values()][:4]] for row in part] for part in (train_rows, val_rows)
    )
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    pipeline.fit(rows, [row["species"] for row in train_rows])
    theirs = pipeline.score(held_out, [row["species"] for row in val_rows])
    ours = result(train(fitted, tmp_path / "run"))["metrics"]["val/accuracy"]
    assert ours >= max(0.9, theirs - 0.05)


def test_a_number_is_predicted_as_well_as_its_noise_allows_and_judged_in_its_own_unit(tmp_path: Path) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=2000, noise=0.5)
    metrics = result(train(recipe(tmp_path, table, val_fraction=0.2), tmp_path / "run"))["metrics"]
    # The noise has a standard deviation of 0.5; what it leaves unexplained is 0.25 of a variance of 16.8.
    assert 0.45 < metrics["val/rmse"] < 0.65
    assert 0.35 < metrics["val/mae"] < 0.52
    assert 0.97 < metrics["val/r2"] < 0.99


def test_regression_adds_up_over_batches_to_what_scikit_learn_says() -> None:
    outputs, targets = torch.randn(2, 100, generator=torch.Generator().manual_seed(0)).unbind()
    metric = Regression(units=(7.0,))
    parts = [metric.sums(outputs[part, None], {"targets": targets[part]}) for part in (slice(0, 33), slice(33, 100))]
    found = metric.compute({name: parts[0][name] + parts[1][name] for name in parts[0]})
    truth, said = 7 * targets.double().numpy() + 1e3, 7 * outputs.double().numpy() + 1e3
    assert found == {
        "mae": pytest.approx(mean_absolute_error(truth, said)),
        "rmse": pytest.approx(root_mean_squared_error(truth, said)),
        "r2": pytest.approx(r2_score(truth, said)),
    }
    assert metric.compute(metric.sums(torch.ones(3), {"targets": torch.zeros(3)})) == {"mae": 7.0, "rmse": 7.0}


def test_a_run_that_stops_and_resumes_ends_with_the_same_bits(tmp_path: Path) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=100)
    whole = recipe(tmp_path, table, val_fraction=0.2, epochs=4, optim=replace(TableCsv().optim, schedule="constant"))
    at_once = train(whole, tmp_path / "at_once")
    train(replace(whole, max_steps=5), tmp_path / "in_two")
    assert same_bits(weights(train(whole, tmp_path / "in_two")), weights(at_once))


def test_what_is_fitted_does_not_see_the_rows_that_are_held_out(tmp_path: Path) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=200)
    before = recipe(tmp_path, table, val_fraction=0.25).fitted()
    held_out = before.dataset("val").table.lines(np.arange(50))
    lines = table.read_text().splitlines()
    for line in held_out:
        lines[line - 1] = "1e6,,violet,1e6"
    table.write_text("\n".join(lines))
    after = recipe(tmp_path, table, val_fraction=0.25).fitted()
    assert replace(after.fit, content=before.fit.content) == before.fit
    kept = [[float(cell) for cell in line.split(",")[:2]] for line in np.delete(lines, [0, *(held_out - 1)])]
    assert [feature.mean for feature in after.fit.numbers] == pytest.approx(np.mean(kept, 0))
    assert [feature.std for feature in after.fit.numbers] == pytest.approx(np.std(kept, 0))
    assert not set(after.dataset("train").table.lines(np.arange(150))) & set(held_out)
    other = recipe(tmp_path, table, val_fraction=0.25, seed=1).fitted().dataset("val")
    assert set(other.table.lines(np.arange(50))) != set(held_out)


def test_missing_numbers_and_unseen_categories_are_values_of_their_own(tmp_path: Path) -> None:
    table = write(
        tmp_path / "a.csv", "n,m,c,y", "1,5,x,no", ",7,z,yes", "3,5,x,no", "NA,7,,yes", "1,5,z,no", "3,7,x,no"
    )
    val = write(tmp_path / "b.csv", "y,c,m,n", "yes,w,7,", "no,,-,3", "no,z,5,2")
    fitted = recipe(tmp_path, table, val_csv=str(val)).fitted()
    assert [feature.has_missing for feature in fitted.fit.numbers] == [True, False]
    columns = fetched(fitted, "train", 4)
    # Both have a median of 2 or 6 and quartiles 2 apart: their numbers lie half of that away, and are clipped a little.
    off, near = (pytest.approx(sign * 0.5 / (1 + 0.5**2 / 9) ** 0.5) for sign in (1, -1))
    assert columns["numbers"].tolist() == [[near, near, 0], [0, off, 1], [off, near, 0], [0, off, 1]]
    assert columns["categories"][:, 0].tolist() == [1, 2, 1, 0]
    assert columns["targets"].tolist() == [0, 1, 0, 1]
    columns = fetched(fitted, "val", 3)
    assert columns["numbers"].tolist() == [[0, off, 1], [off, 0, 0], [0, near, 0]]
    assert columns["categories"][:, 0].tolist() == [0, 0, 2]
    assert {name: column.dtype for name, column in columns.items()} == {
        "numbers": torch.float32,
        "categories": torch.int64,
        "targets": torch.int64,
    }
    assert result(train(replace(fitted, epochs=1), tmp_path / "run"))["steps"] == 1


@pytest.mark.parametrize(
    ("cells", "task", "classes"),
    [
        ("0 1 0 1", "auto", ("0", "1")),
        ("0.0 1.0 NA 1.0 10.0 2.0", "auto", ("0", "1", "2", "10")),
        ("0.5 1.0 0.5 1.0", "auto", ()),
        ("0.5 1.0 0.5 1.0", "classification", ("0.5", "1.0")),
        ("0 1 0 1", "regression", ()),
        (" ".join(str(i % 21) for i in range(60)), "auto", ()),
        (" ".join(str(i % 20) for i in range(60)), "auto", tuple(map(str, range(20)))),
        ("yes no yes no", "auto", ("no", "yes")),
    ],
)
def test_the_target_says_whether_it_is_a_class_or_a_number(
    cells: str, task: Any, classes: tuple[str, ...], tmp_path: Path
) -> None:
    rows = [f"{i},{cell}" for i, cell in enumerate(cells.split())]
    table = write(tmp_path / "table.csv", "x,y", *rows)
    fitted = recipe(tmp_path, table, task=task, bad_rows="skip", max_bad_fraction=0.2).fitted()
    assert fitted.fit.target.classes == classes
    assert isinstance(fitted.metrics(), Regression) == (classes == ())
    targets = fitted.dataset("train").__getitems__(np.arange(2))["targets"]
    assert targets.dtype == (np.int64 if classes else np.float32)


def test_labels_that_training_lacks_are_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "table.csv", "x,y", "1,0.0", "2,1.0", "3,10.0")
    val = write(tmp_path / "val.csv", "x,y", "1,10.0", "2,7", "3,0")
    strict = recipe(tmp_path, table, val_csv=str(val)).fitted()
    with pytest.raises(
        DataError, match=r"val\.csv:3: column 'y' holds '7'; expected a label that occurs in .*table\.csv"
    ):
        strict.dataset("val")
    lenient = replace(strict, data=replace(strict.data, bad_rows="skip", max_bad_fraction=0.5))
    assert lenient.dataset("val").__getitems__(np.arange(2))["targets"].tolist() == [2, 0]

    # One of a kind is no fault of the CSV's where it is the seed that holds it out.
    table = write(tmp_path / "rare.csv", "x,y", *(f"{i},{'ab'[i % 2]}" for i in range(20)), "20,rare")
    for seed in range(9):
        fitted = recipe(tmp_path, table, val_fraction=0.3, seed=seed).fitted()
        assert fitted.fit.target.classes == ("a", "b", "rare")
        assert len(fitted.dataset("val")) == 6


def test_bad_rows_are_refused_or_left_out_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i},{i % 2},{'ab'[i % 2]},word {i}" for i in range(98)]
    table = write(tmp_path / "table.csv", "x,unread,y,words", *rows, "abc,1,a,w", "5,1,,w", "6,zzz,a,w")
    val = write(tmp_path / "val.csv", "x,y", *["1,a"] * 49, "2,c")
    strict = recipe(tmp_path, table, val_csv=str(val), ignore=("unread",))
    with pytest.raises(
        DataError, match=r"2 of 101 rows are bad: .*csv:100: column 'x' holds 'abc'.*--data.bad-rows skip"
    ):
        strict.fitted()
    assert capsys.readouterr().out == ""
    kind = replace(strict.data, bad_rows="skip")
    with pytest.raises(DataError, match=r"more than --data.max-bad-fraction 0.01 allows"):
        replace(strict, data=kind).fitted()
    fitted = replace(strict, data=replace(kind, max_bad_fraction=0.02)).fitted()
    assert capsys.readouterr().out.splitlines() == [
        f"{table}: utf-8, delimiter ',', quote \", decimal '.'",
        f"{table}: not learned from, because they are text or empty: words",
    ]
    assert fitted.dataset("train").left_out.records() == [
        f'"{table}",100,"x","abc","expected a number"',
        f'"{table}",101,"y","","expected a label"',
    ]
    assert (len(fitted.dataset("train")), len(fitted.dataset("val"))) == (99, 49)
    assert fitted.dataset("val").left_out.messages(9) == [
        f"{val}:51: column 'y' holds 'c'; expected a label that occurs in {table}"
    ]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"train_csv": ""}, "name the CSV to train on with --data.train-csv FILE"),
        ({"target": ""}, "name the column to learn with --data.target COLUMN"),
        ({"train_csv": "none.csv"}, "none.csv is not there; name a CSV file"),
        ({"target": "z"}, "has no column 'z'; it has: x, one, name, y"),
        ({"ignore": ("z",)}, "has no column 'z'; it has: x, one, name, y"),
        ({"ignore": ("y",)}, "--data.ignore names 'y', which is to be learned"),
        ({"target": "one"}, "column 'one' holds 1 in all rows to train on; there must be at least two values"),
        ({"target": "one", "task": "regression"}, "column 'one' holds 1.0 in all rows"),
        (
            {"ignore": ("x", "one")},
            "no column to learn 'y' from: numbers and categories are learned from, and there is na",
        ),
        ({"val_csv": "b.csv", "val_fraction": 0.2}, "--data.val-csv and --data.val-fraction are two ways to evaluate"),
        ({"val_fraction": 0.01}, "--data.val-fraction 0.01 of the 20 rows"),
    ],
)
def test_a_mistake_is_reported_in_one_line(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    table = write(tmp_path / "table.csv", "x,one,name,y", *(f"{i},1,n{i},{'ab'[i % 2]}" for i in range(20)))
    right = recipe(tmp_path, table)
    with pytest.raises(UserError) as error:
        replace(right, data=replace(right.data, **settings)).fitted()
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_what_was_fitted_is_stored_and_a_run_is_not_resumed_on_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=60)
    flags = ["--data.train-csv", str(table), "--data.target", "y", "--data.cache", str(tmp_path / "cache")]
    flags += ["--data.types", "colour", "category", "--data.val-fraction", "0.5", "--epochs", "2"]
    flags += ["--storage", str(tmp_path), "--run", "mine", "--scale.num-workers", "0"]
    train_command(["table_csv", *flags])
    stored = json.loads((tmp_path / "mine" / "recipe.json").read_text())
    found = recipe_from_json(stored)
    assert isinstance(found, TableCsv)
    assert found.fit.categories[0].values == tuple(sorted(WORDS))
    assert found == replace(found, fitted_on=None).fitted()
    assert recipe_to_json(found) == recipe_to_json(recipe_from_json(json.loads(json.dumps(recipe_to_json(found)))))
    trained_to = json.loads((tmp_path / "mine" / "result.json").read_text())["metrics"]["val/rmse"]
    # As a version before 0.2 stored it.
    older = json.loads(json.dumps(stored))
    del older["fitted_on"]["numbers"][0]["quantiles"]
    with pytest.raises(UserError, match=r"NumberFeature lacks quantiles; another version stored it: train again"):
        recipe_from_json(older)

    table.touch()
    capsys.readouterr()
    evaluate([str(tmp_path / "mine"), "--checkpoint", "last", "--scale.num-workers", "0"])
    assert f"{'rmse':24} {trained_to:.4f}" in capsys.readouterr().out

    val = write(tmp_path / "val.csv", "a,b,colour,y", "0.5,1,red,44", "0,,mauve,40")
    table.write_text(table.read_text() + "0,0,red,44\n")
    (changed,) = differences(recipe_from_json(stored), replace(found, fitted_on=None).fitted())
    assert changed.startswith("fitted_on.content (was ")
    assert len(changed) < 120
    with pytest.raises(
        UserError, match=r"was made with other settings: fitted_on\.content \(was [^,]*, is [^,]*\); give"
    ):
        train_command(["table_csv", *flags])
    with pytest.raises(DataError, match=r"table\.csv has changed since the run was started"):
        evaluate([str(tmp_path / "mine"), "--scale.num-workers", "0"])

    # Neither the training CSV nor what was fitted on it is needed for rows of another CSV.
    table.unlink()
    capsys.readouterr()
    evaluate([str(tmp_path / "mine"), "--data.val-csv", str(val), "--scale.num-workers", "0"])
    assert "2 rows of val" in capsys.readouterr().out


def test_a_run_without_rows_to_evaluate_on_trains_and_is_not_evaluated(tmp_path: Path) -> None:
    flags = ["--data.train-csv", str(numbers_and_colours(tmp_path / "table.csv", rows=60)), "--data.target", "y"]
    flags += ["--data.cache", str(tmp_path / "cache"), "--epochs", "1", "--storage", str(tmp_path), "--run", "mine"]
    train_command(["table_csv", *flags, "--scale.num-workers", "0"])
    with pytest.raises(UserError, match="recipe table_csv has no val rows to evaluate on"):
        evaluate([str(tmp_path / "mine"), "--scale.num-workers", "0"])
    evaluate([str(tmp_path / "mine"), "--split", "train", "--scale.num-workers", "0"])
