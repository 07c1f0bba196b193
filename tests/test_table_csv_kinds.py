"""What kinds of columns a table may have, and what of them is learned: dates, amounts, many categories, skew."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import blitz
from blitz.api.train_run import TrainSettings, train_run
from blitz.recipes.table_csv import TableCsv
from tests.test_table_csv import recipe, write

ROWS = 400


def days(count: int) -> list[Any]:
    """Days of 2023 and 2024, in no order."""
    random = np.random.default_rng(0)
    return [(np.datetime64("2023-01-01") + int(one)).item() for one in random.integers(0, 731, count)]


def dated(folder: Path, *, form: str = "%d.%m.%Y") -> Path:
    """y is 10 on Sundays and 0 on other days, but for noise."""
    noise = np.random.default_rng(1).normal(size=ROWS)
    found = zip(days(ROWS), noise, strict=True)
    rows = [f"{day.strftime(form)},{error:.3f},{10 * (day.weekday() == 6) + error / 9:.3f}" for day, error in found]
    return write(folder / "dated.csv", "when,noise,y", *rows)


def fitted(folder: Path, table: Path, **settings: Any) -> TableCsv:
    return recipe(folder, table, **settings).fitted()


def test_the_weekday_of_a_date_is_learned_and_predicted_from_raw_cells(tmp_path: Path) -> None:
    table = dated(tmp_path)
    made = recipe(tmp_path, table, val_fraction=0.2, epochs=30, global_batch_size=64)
    trained = train_run(TrainSettings(made, run="run", storage=str(tmp_path), report=False))
    # Without the date, R² is 0.
    assert trained.result["metrics"]["val/r2"] > 0.8
    # 2 March 2025 is a Sunday; the other dates are read in the order of the training rows, too.
    new = write(tmp_path / "new.csv", "noise,when", "0,02.03.2025", "0,03.03.2025", "0,", "0,soon")
    predicted = blitz.open(tmp_path / "run").predict(new)["prediction"].to_pylist()
    assert predicted[0] > 5 > predicted[1]
    assert all(math.isfinite(one) for one in predicted)


def test_amounts_and_shares_are_numbers_whether_features_or_target(tmp_path: Path) -> None:
    rows = [f'"${i + 1},{100 + i % 900}.50",{i / 4} %,"$1,{100 + i}"' for i in range(ROWS)]
    made = fitted(tmp_path, write(tmp_path / "t.csv", "price,share,y", *rows), target="y")
    assert [one.name for one in made.fit.numbers] == ["price", "share"]
    columns = made.dataset("train").__getitems__(np.array([7]))
    assert columns["numbers"].tolist() == [[8107.5, 1.75]]
    assert not made.fit.target.classes
    assert made.fit.target.mean == pytest.approx(1100 + (ROWS - 1) / 2)


def test_rare_and_unseen_values_share_a_code_and_of_few_values_each_has_its_own(tmp_path: Path) -> None:
    rows = [f"w{i % 97 if i < 380 else i},{'rare' if i == 5 else 'common'},{i % 7}.5" for i in range(ROWS)]
    made = fitted(tmp_path, write(tmp_path / "t.csv", "word,few,y", *rows))
    word, few = made.fit.categories
    assert (len(word.values), word.buckets, few.values) == (97, 0, ("common", "rare"))
    codes = made.dataset("train").__getitems__(np.array([0, 97, 399]))["categories"][:, 0].tolist()
    assert codes == [word.codes["w0"], word.codes["w0"], 0]


def test_of_very_many_values_the_less_frequent_are_hashed_and_unseen_ones_too(tmp_path: Path) -> None:
    rows = [f"w{i // 2 if i < 3000 else i % 200},{i % 7}.5" for i in range(6000)]
    table = write(tmp_path / "t.csv", "word,y", *rows)
    made = fitted(tmp_path, table)
    (word,) = made.fit.categories
    assert (len(word.values), made.fit.codes) == (1000, (1065,))
    assert {f"w{i}" for i in range(200)} <= set(word.values)
    new = made.inputs(str(write(tmp_path / "new.csv", "word", "w3", "never seen", "w999", '""')))
    codes = new.__getitems__(np.arange(4))["categories"][:, 0].tolist()
    assert codes[0] == word.codes["w3"]
    assert all(1001 <= code < 1065 for code in codes[1:3])
    assert codes[3] == 0


def test_strings_that_identify_the_row_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first rows, by which types are guessed, repeat.
    rows = [f"{'r' * 200}{i // 4 if i < 4000 else i},{i % 5},{i % 7}.5" for i in range(9000)]
    made = fitted(tmp_path, write(tmp_path / "t.csv", "row,a,y", *rows))
    assert [one.name for one in made.fit.numbers] == ["a"]
    assert not made.fit.categories
    assert "not learned from, because most rows have a value of their own: row" in capsys.readouterr().out


def test_a_target_with_numbers_far_above_the_others_is_learned_as_its_logarithm_and_judged_in_its_unit(
    tmp_path: Path,
) -> None:
    x = np.random.default_rng(0).normal(size=1000)
    table = write(tmp_path / "t.csv", "x,y", *(f"{a},{math.exp(3 * a)}" for a in x))
    made = recipe(tmp_path, table, val_fraction=0.2, epochs=20, global_batch_size=64)
    trained = train_run(TrainSettings(made, run="run", storage=str(tmp_path), report=False))
    assert isinstance(trained.recipe, TableCsv)
    target, rows = trained.recipe.fit.target, trained.recipe.dataset("val")
    assert target.log_unit > 0
    lines = rows.table.lines(np.arange(len(rows))) - 2
    truth = np.exp(3 * x[lines])
    predicted = blitz.open(tmp_path / "run").predict(table)["prediction"].to_numpy()[lines]
    mae = np.abs(predicted - truth).mean()
    # Predictions have six digits in the file, and targets are float32.
    assert trained.result["metrics"]["val/mae"] == pytest.approx(mae, rel=1e-4)
    numbers = torch.tensor([0.0, 1.0, 1e3], dtype=torch.float64)
    assert target.undone(torch.from_numpy(target.standardised(numbers.numpy())).double()).tolist() == pytest.approx(
        numbers.tolist(), rel=1e-5, abs=1e-5
    )
    assert not fitted(tmp_path, table, target_scale="linear").fit.target.log_unit


def test_classes_that_look_like_a_rating_are_said_to_be_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    ratings = random.normal(6, 1, ROWS).round().clip(3, 9).astype(int)
    line = "is learned as 7 classes, 3 to 9; if it counts or rates, predict a number with --data.task regression"
    rated = write(tmp_path / "r.csv", "a,y", *(f"{i * 7 % 11},{rating}" for i, rating in enumerate(ratings)))
    fitted(tmp_path, rated)
    assert line in capsys.readouterr().out
    assert not fitted(tmp_path, rated, task="regression").fit.target.classes
    digits = write(tmp_path / "d.csv", "a,y", *(f"{i * 7 % 11},{i % 10}" for i in range(ROWS)))
    capsys.readouterr()
    assert len(fitted(tmp_path, digits).fit.target.classes) == 10
    assert "classes, 0 to 9" not in capsys.readouterr().out


def test_free_text_is_learned_from_by_the_pieces_of_its_words_and_exported(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    filler = ["film", "scene", "actor", "story", "music", "ending", "camera", "light"]
    rows = []
    for number in range(ROWS):
        words = [*random.choice(filler, 6), "wonderfully" if number % 2 else "terribly", str(number)]
        rows.append(f"{' '.join(random.permutation(words))},{number % 2}")
    table = write(tmp_path / "t.csv", "review,y", *rows)
    made = recipe(tmp_path, table, text=("review",), val_fraction=0.2, epochs=20, global_batch_size=32)
    trained = train_run(TrainSettings(made, run="run", storage=str(tmp_path), report=False))
    assert trained.result["metrics"]["val/accuracy"] > 0.95
    run = blitz.open(tmp_path / "run")
    # No row holds this word, and it has pieces of one that rows hold.
    new = write(tmp_path / "new.csv", "review", "a wonderful story", "the terrible ending", '""')
    predicted = run.predict(str(new))["prediction"].to_pylist()
    assert predicted[:2] == [1, 0]
    module = torch.export.load(run.export()).module()
    columns = run.recipe.inputs(str(new)).__getitems__(np.arange(3))
    shares = module(*(torch.from_numpy(columns[name]) for name in ("numbers", "categories", "texts")))["probabilities"]
    assert shares[:, 1].tolist() == pytest.approx(run.predict(str(new))["probability_1"].to_pylist(), abs=1e-5)
