"""What is shown of a table's model: importance, dependence, errors, calibration, and prediction intervals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import betabinom

import blitz
from blitz.cli.evaluate import main as evaluate
from blitz.cli.predict import main as predict
from blitz.cli.train import main as train
from blitz.data.csv.tabular import CsvRows
from blitz.errors import UserError
from tests.test_table_csv import numbers_and_colours, write


def flags(folder: Path, table: Path, *more: str) -> list[str]:
    """A plain model that learns a linear function well in a second."""
    where = ["--storage", str(folder), "--run", "run", "--data.cache", str(folder / "cache")]
    model = ["--model.name", "mlp", "--model.dropout", "0", "--epochs", "20"]
    return ["table_csv", "--data.train-csv", str(table), "--data.target", "y", *where, *model, *more]


def explanation(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "run" / "explanations").glob("val-*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_columns_of_a_number_are_explained_and_the_report_shows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=800)
    train(flags(tmp_path, table, "--data.val-fraction", "0.3", "--data.test-fraction", "0.2"))
    found = explanation(tmp_path)
    importance = found["importance"]
    # Of y = 3 a - 2 b + 4 red the terms have variances of 9, 4 and 32 / 9, and the loss is a share of the sum.
    assert importance[0]["column"] == "a"
    for one, variance in zip(sorted(importance, key=lambda one: one["column"]), (9, 4, 32 / 9), strict=True):
        low, high = one["interval"]
        expected = 2 * variance / (9 + 4 + 32 / 9 + 0.25)
        assert low < one["loss"] < high
        # Three times as far as the interval, as the model is not quite that function.
        assert abs(one["loss"] - expected) < 3 * (high - low)
        assert one["change"] > 0
    dependence = {one["column"]: one["points"] for one in found["dependence"]}
    values = [point["value"] for point in dependence["a"]]
    cells = [point["cell"] for point in dependence["a"]]
    assert cells == sorted(cells)
    assert np.polyfit(cells, values, 1)[0] == pytest.approx(3, abs=0.5)
    colours = {point["cell"]: point["value"] for point in dependence["colour"]}
    assert colours["red"] - colours["blue"] == pytest.approx(4, abs=1)
    lines = table.read_text().splitlines()
    for one in found["worst"]:
        a, b, colour, y = lines[one["line"] - 1].split(",")
        assert one["cells"] == {"a": pytest.approx(float(a)), "b": pytest.approx(float(b)), "colour": colour}
        assert one["truth"]["prediction"] == pytest.approx(float(y), rel=1e-5)
    assert len(found["residuals"]) == 240
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(f'data-chart="{name}"' in page for name in ("importance", "dependence a", "residuals"))
    said = capsys.readouterr().out
    evaluate([str(tmp_path / "run"), "--explain"])
    again = explanation(tmp_path)
    assert again == found
    said = capsys.readouterr().out
    assert "90% prediction intervals, from 240 errors" in said
    assert "of 160 test rows" in said


def test_as_many_test_rows_lie_within_the_intervals_as_theory_says(tmp_path: Path) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=800)
    shares = ["--data.val-fraction", "0.3", "--data.test-fraction", "0.5", "--best.metric", "loss", "--no-report"]
    train(flags(tmp_path, table, *shares))
    run = blitz.open(tmp_path / "run")
    predict(
        [str(tmp_path / "run"), str(table), str(tmp_path / "out.csv"), "--intervals", "0.8", "--checkpoint", "last"]
    )
    names, *rows = [line.split(",") for line in (tmp_path / "out.csv").read_text().splitlines()]
    assert names[-4:] == ["prediction", "lower", "upper", "error"]
    tests = run.recipe.dataset("test")
    assert isinstance(tests, CsvRows)
    chosen = tests.table.lines(np.arange(400)) - 2
    columns = (np.array([float(row[names.index(name)]) for row in rows]) for name in ("y", "lower", "upper"))
    y, lower, upper = (column[chosen] for column in columns)
    within = int(((lower <= y) & (y <= upper)).sum())
    # Of 240 errors of exchangeable rows the 193rd is the bound.
    exact = betabinom(400, 193, 241 - 193)
    assert exact.ppf(1e-6) <= within <= exact.ppf(1 - 1e-6)
    again = run.predict(table, intervals=0.8, checkpoint="last")
    assert np.allclose(again["upper"].to_numpy()[chosen], upper)


def test_folds_give_intervals_of_their_own_models(tmp_path: Path) -> None:
    table = numbers_and_colours(tmp_path / "table.csv", rows=150)
    train(flags(tmp_path, table, "--folds", "3", "--epochs", "4", "--no-report"))
    found = blitz.open(tmp_path / "run").predict(table, intervals=0.9)
    lower, middle, upper = (found[name].to_numpy() for name in ("lower", "prediction", "upper"))
    assert ((lower < middle) & (middle < upper)).all()
    # Of one model the width would be the same in all rows.
    assert np.ptp(upper - lower) > 1e-3


def test_classes_are_explained_by_their_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 400))
    table = write(tmp_path / "t.csv", "a,b,y", *(f"{a[i]},{b[i]},{'yes' if a[i] > 1 else 'no'}" for i in range(400)))
    train(flags(tmp_path, table, "--data.val-fraction", "0.5", "--no-report"))
    evaluate([str(tmp_path / "run"), "--explain"])
    said = capsys.readouterr().out
    assert "probability of yes, and how often it is right" in said
    found = explanation(tmp_path)
    assert found["importance"][0]["column"] == "a"
    assert found["importance"][0]["change"] < 0
    bins = found["calibration"]["bins"]
    assert found["calibration"]["of"] == "yes"
    assert sum(one["rows"] for one in bins) == 200
    assert bins[0]["share"] < 0.1 < 0.5 < bins[-1]["share"]
    assert {one["series"] for one in found["dependence"][0]["points"]} == {"probability of yes"}
    with pytest.raises(UserError, match="does not predict numbers here"):
        blitz.open(tmp_path / "run").predict(table, intervals=0.9)
    named = write(tmp_path / "named.csv", "a,b,lower", "1,2,3")
    with pytest.raises(UserError, match=r"has a column 'lower' already"):
        predict([str(tmp_path / "run"), str(named), str(tmp_path / "out.csv"), "--intervals", "0.9"])
    with pytest.raises(UserError, match=r"--intervals is 1\.5"):
        predict([str(tmp_path / "run"), str(table), str(tmp_path / "out.csv"), "--intervals", "1.5"])
