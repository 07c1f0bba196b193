"""The parts of a CSV's rows."""

from collections import Counter
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.splits import Parts, SplitBy, split_rows
from blitz.errors import DataError, UserError

ROWS = 300


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CsvIndex:
    """Classes of 200, 90, 9 and 1 rows; 30 groups; dates of which each stands in 3 rows, in no order; a gap."""
    random = np.random.default_rng(0)
    classes = random.permutation(["a"] * 200 + ["b"] * 90 + ["c"] * 9 + ["d"])
    groups, days = random.permutation(np.arange(ROWS) % 30), random.permutation(np.arange(ROWS) // 3)
    lines = ["class,group,day,number,gap"]
    for row in range(ROWS):
        written = (date(2020, 1, 1) + timedelta(int(days[row]))).strftime("%d/%m/%Y")
        lines.append(f"{classes[row]},g{groups[row]},{written},{days[row]},{'' if row == 41 else 'x'}")
    folder = tmp_path_factory.mktemp("splits")
    (folder / "table.csv").write_text("\n".join([*lines, ""]))
    return index_csv(folder / "table.csv", folder / "cache")


def split(index: CsvIndex, by: str, val: float | None = 0.2, test: float | None = 0.1, **more: Any) -> Parts:
    rows = np.arange(ROWS)
    return split_rows(index, rows, SplitBy.parsed(by), val=val, test=test, seed=more.pop("seed", 0), **more)


def cells(index: CsvIndex, column: str) -> np.ndarray:
    found: np.ndarray = index.table()[column].to_numpy()
    return found


@pytest.mark.parametrize("by", ["random", "stratified", "group:group", "time:day", "time:number"])
def test_every_row_is_in_one_part_and_the_parts_follow_from_content_and_seed(index: CsvIndex, by: str) -> None:
    parts = split(index, by, classes="class")
    assert (parts.train.astype(int) + parts.val + parts.test == 1).all()
    again = split(index, by, classes="class")
    assert all((one == other).all() for one, other in zip(vars(parts).values(), vars(again).values(), strict=True))
    assert (parts.val.sum(), parts.test.sum()) == (60, 30)
    # So that a run with another share to evaluate on is comparable.
    assert (split(index, by, val=0.4, classes="class").test == parts.test).all()
    other = split(index, by, seed=1, classes="class")
    assert (other.val == parts.val).all() == by.startswith("time")


def test_each_class_has_its_share_of_each_part_and_a_row_to_train_on(index: CsvIndex) -> None:
    parts, codes = split(index, "auto", classes="class"), index.codes["class"]
    classes = np.array([codes[code] for code in cells(index, "class")])
    rows = Counter(classes.tolist())
    for share, part in ((0.2, parts.val), (0.1, parts.test)):
        found = Counter(classes[part].tolist())
        assert all(abs(found[name] - share * count) <= 1 for name, count in rows.items())
    assert Counter(classes[parts.train].tolist())["d"] == 1


def test_rows_of_a_group_are_in_the_same_part(index: CsvIndex) -> None:
    parts, groups = split(index, "group:group"), cells(index, "group")
    train, val, test = (set(groups[mask]) for mask in (parts.train, parts.val, parts.test))
    # Of 30 groups of 10 rows.
    assert (len(train), len(val), len(test)) == (21, 6, 3)
    assert len(train | val | test) == 30


@pytest.mark.parametrize("column", ["day", "number"])
def test_the_latest_rows_are_tested_on_and_rows_of_the_same_time_stay_together(index: CsvIndex, column: str) -> None:
    parts, days = split(index, f"time:{column}"), cells(index, "number")
    assert days[parts.train].max() < days[parts.val].min()
    assert days[parts.val].max() < days[parts.test].min()
    assert (parts.val.sum(), parts.test.sum()) == (60, 30)


@pytest.mark.parametrize(
    ("by", "error", "message"),
    [
        ("halves", UserError, "must be auto, random, stratified, group:COLUMN or time:COLUMN"),
        ("group:", UserError, "must be auto, random"),
        ("stratified", UserError, "is not learned as classes"),
        ("group:nothing", DataError, "has no column 'nothing'"),
        ("group:gap", DataError, "table.csv:43: column 'gap' is empty, as in 1 rows in all"),
        ("time:class", DataError, "neither numbers nor dates"),
    ],
)
def test_what_cannot_be_split_is_refused_in_a_line(index: CsvIndex, by: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        split(index, by)


def test_shares_that_leave_no_row_to_train_on_are_refused(index: CsvIndex) -> None:
    with pytest.raises(UserError, match="leave none to train on"):
        split(index, "random", val=0.7, test=0.3)
