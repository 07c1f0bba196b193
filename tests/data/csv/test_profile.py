"""A profile finds what spoils training: columns that give the target away, parts that differ, rows in both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blitz.data.csv.profile import Part, TableProfile, profile_of
from blitz.data.csv.reading.index import index_csv
from blitz.data.csv.reading.reader import CsvOptions


def profiled(folder: Path, columns: dict[str, list[Any]], held_out: int, target: str) -> TableProfile:
    """The last `held_out` rows are evaluated on."""
    lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    (folder / "table.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
    index = index_csv(folder / "table.csv", folder / "cache", CsvOptions(label_columns=(target,)))
    kept = np.arange(index.rows) < index.rows - held_out
    return profile_of(Part(index, kept), Part(index, ~kept), target, seed=0)


def test_leaks_drift_and_near_duplicates_are_found_and_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, held_out = 1200, 400
    label = rng.integers(0, 2, rows)
    half = np.where(rng.random(rows) < 0.75, label, 1 - label)
    noise, moved = rng.normal(size=rows), rng.normal(size=rows)
    moved[-held_out:] += 1
    # The last row evaluated on is the first trained on, but for rounding, blanks and case.
    noise[-1], moved[-1], label[-1], half[-1] = noise[0] * 1.00001, moved[0], label[0], half[0]
    words = [f"Some Words {i}" for i in range(rows)]
    words[-1] = " some  words 0"
    columns: dict[str, list[Any]] = {
        "row": list(range(rows)),
        "noise": noise.tolist(),
        "moved": moved.tolist(),
        "outcome": [["lost", "won"][one] for one in label],
        "half": half.tolist(),
        "words": words,
        "label": [["no", "yes"][one] for one in label],
    }
    profile = profiled(tmp_path, columns, held_out, "label")
    found = {one.report.name: one for one in profile.columns}
    assert [name for name, one in found.items() if one.is_leak] == ["outcome"]
    # The numbers of the rows of a part differ, too; texts are all others.
    assert [name for name, one in found.items() if one.drifts and name not in ("row", "words")] == ["moved"]
    assert profile.duplicates == 1
    assert profile.pairs == ((f"{tmp_path}/table.csv:{rows + 1}", f"{tmp_path}/table.csv:2"),)
    # 1 - the entropy of 3/4 in bits is 0.19; over seeds of this table it is 0.19 ± 0.03.
    explained = found["half"].explained
    assert explained is not None
    assert 0.05 < explained < 0.35
    assert profile.rows == (rows - held_out, held_out)


def test_a_monotone_copy_of_a_number_is_a_leak_and_the_mean_of_each_bin_is_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    price, kind = rng.lognormal(size=600), rng.integers(0, 3, 600)
    columns: dict[str, list[Any]] = {
        "logarithm": np.log(price).tolist(),
        "kind": [f"kind {one}" for one in kind],
        "price": price.tolist(),
    }
    profile = profiled(tmp_path, columns, 100, "price")
    found = {one.report.name: one for one in profile.columns}
    assert [name for name, one in found.items() if one.is_leak] == ["logarithm"]
    means = dict(zip(found["kind"].bins, found["kind"].targets, strict=True))
    for one in range(3):
        assert means[f"kind {one}"] == pytest.approx(price[:500][kind[:500] == one].mean(), rel=1e-9)
