from pathlib import Path

import numpy as np
import pytest

from blitz.data.csv import quantiles
from blitz.data.csv.features import NumberFeature
from blitz.data.csv.quantiles import LEVELS, quantiles_of
from blitz.data.csv.reading.columns import ColumnReport
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.reader import CsvOptions
from blitz.models.number_embeddings import robust_scale


def table(folder: Path, numbers: np.ndarray) -> CsvIndex:
    lines = [f"{number!r},{'' if row % 2 else row}" for row, number in enumerate(numbers.tolist())]
    (folder / "table.csv").write_text("\n".join(["a,b", *lines, ""]))
    return index_csv(str(folder / "table.csv"), str(folder / "cache"), CsvOptions())


def test_quantiles_are_those_of_the_kept_rows_whose_number_is_there(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=200)
    kept = np.arange(200) < 150
    found = quantiles_of(table(tmp_path, numbers), ["a", "b"], kept, seed=0)
    levels = np.linspace(0, 1, LEVELS + 1)
    assert found["a"] == pytest.approx(np.quantile(numbers[:150], levels))
    assert found["b"] == pytest.approx(np.quantile(np.arange(0, 150, 2), levels))


def test_a_number_that_no_row_of_the_sample_has_is_scaled_by_its_range() -> None:
    report = ColumnReport("rare", "number", 2, 10**6, mean=3.0, std=1.0, min=2.0, max=4.0)
    feature = NumberFeature.fitted(report, ())
    assert robust_scale(feature.quantiles) == (3.0, 1.0)


def test_of_many_rows_a_sample_is_taken_that_the_seed_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0).permutation(5000).astype(float)
    index, kept = table(tmp_path, numbers), np.ones(5000, bool)
    monkeypatch.setattr(quantiles, "_MOST_ROWS", 1000)
    one, same, other = (quantiles_of(index, ["a"], kept, seed)["a"] for seed in (0, 0, 1))
    assert one == same != other
    # The standard deviation of the share below a quantile is at most 0.5 / sqrt(1000) = 0.016 of 5000 numbers.
    assert np.abs(np.array(one) - np.linspace(0, 4999, LEVELS + 1)).max() < 4 * 0.016 * 5000
