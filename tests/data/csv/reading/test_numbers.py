"""What a cell of a number column says: every spelling, at once and cell by cell."""

import math
import random
import re
from pathlib import Path

import numpy as np
import pyarrow
import pytest

from blitz.data.csv.reading.numbers import Evidence, NumberReader, Writing
from tests.data.csv.reading.test_index import indexed

BLANKS = ("", " ", "\t", "\u00a0", "\u202f", "\u2003")
MISSING = ("", "nan", "+nan", "-nan", "n/a", "#n/a", "na", "#na", "<na>", "null", "none", "-", "--", "?", "–", "—")
STRANGE = (
    *("inf", "-inf", "+Inf", "infinity", "1e400", "3.1e38", "-1e39", "1_000", "0x10", "５", "−5", "1e", "e5", ".", "+"),
    *(
        "--5",
        "5e+",
        "1.5.2",
        "1d5",
        "5f",
        "nan(1)",
        "nan5",
        "snan",
        "True",
        "\u200b5",
        "1 2",
        "5%",
        "$5",
        "1,5",
        "1,234",
    ),
)


def means(cell: str) -> float | str | None:
    """By Python's own `float`: the number, None for missing, or "bad"."""
    word = cell.strip()
    if word.lower() in MISSING:
        return None
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", word):
        return "bad"
    return float(word) if abs(float(word)) <= 3e38 else "bad"


def spelled(draw: random.Random) -> str:
    """A cell: a number in one of its spellings, a missing one, or something else."""
    kind = draw.random()
    if kind < 0.7:
        number = draw.choice([draw.randrange(-10, 10), draw.gauss(0, 1) * 10.0 ** draw.randrange(-60, 45)])
        cell = draw.choice(["{!s}", "{!r}", "{:+g}", "{:E}", "{:.3f}", "{:09.2f}"]).format(number)
    elif kind < 0.85:
        cell = "".join(draw.choice([letter.lower(), letter.upper()]) for letter in draw.choice(MISSING))
    else:
        cell = draw.choice(STRANGE)
    return draw.choice(BLANKS) + cell + draw.choice(BLANKS) if draw.random() < 0.2 else cell


def read(cells: list[str], writing: Writing = Writing(), *, each: bool = False) -> tuple[list[object], Evidence]:  # noqa: B008
    reader = NumberReader(writing)
    # A slice, as pyarrow hands over.
    array = pyarrow.array(["7.5,", *cells], pyarrow.string()).slice(1)
    numbers, bad = (reader.read_each if each else reader.read)(array)
    marked = [False] * len(cells) if bad is None else bad.to_pylist()
    return [
        "bad" if is_bad else number for number, is_bad in zip(numbers.to_pylist(), marked, strict=True)
    ], reader.evidence


def test_at_once_and_cell_by_cell_every_spelling_means_the_same() -> None:
    draw = random.Random(0)
    for size in [1] * 600 + [2, 3, 5] * 60:
        cells = [spelled(draw) for _ in range(size)]
        at_once, one_by_one = read(cells), read(cells, each=True)
        assert at_once == one_by_one, cells
        assert at_once[0] == [means(cell) for cell in cells], cells


def test_with_a_decimal_comma_every_spelling_means_what_it_does_with_a_point() -> None:
    draw = random.Random(1)
    swap = str.maketrans(",.", ".,")
    for _ in range(250):
        cells = [spelled(draw) for _ in range(3)]
        commas = [cell.translate(swap) for cell in cells]
        assert read(commas, Writing(","))[0] == read(commas, Writing(","), each=True)[0] == read(cells)[0], cells


@pytest.mark.parametrize(
    ("cell", "writing", "number"),
    [
        ("1,234", Writing(".", "mark"), 1234),
        ("-1,234,567.5", Writing(".", "mark"), -1234567.5),
        ("1.234", Writing(",", "mark"), 1234),
        ("1.234.567,5", Writing(",", "mark"), 1234567.5),
        ("1 234", Writing(".", "space"), 1234),
        ("1\u00a0234,5", Writing(",", "space"), 1234.5),
        ("1\u202f234\u202f567", Writing(",", "space"), 1234567),
        ("1'234.5", Writing(".", "space"), 1234.5),
        *((cell, Writing(".", "mark"), "bad") for cell in ("1,23", "0,123", "1234,567", ",123", "1,2345", "1 234")),
        *((cell, Writing(",", "mark"), "bad") for cell in ("1.5", "1.23", "0.123", "1,5,2")),
    ],
)
def test_grouped_thousands(cell: str, writing: Writing, number: object) -> None:
    assert read([cell, "5"], writing)[0] == [number, 5.0]


@pytest.mark.parametrize(
    ("cell", "writing", "number"),
    [
        *((cell, Writing(".", "mark", "currency"), 1234.5) for cell in ("$1,234.50", " 1,234.50 USD", "£ 1,234.50")),
        *((cell, Writing(".", "mark", "currency"), -5) for cell in ("-$5", "$-5", "($5)", "(5.00)", "- € 5")),
        ("1.234,50 €", Writing(",", "mark", "currency"), 1234.5),
        *((cell, Writing(unit="percent"), 12.5) for cell in ("12.5%", "12.5 %", "12.5")),
        *((cell, Writing(unit="currency"), "bad") for cell in ("$", "$five", "5 apples", "5%", "$$5", "a5 USD")),
    ],
)
def test_signs_of_currency_and_per_cent_in_a_column_that_has_them(cell: str, writing: Writing, number: object) -> None:
    assert read([cell, "5"], writing)[0] == read([cell, "5"], writing, each=True)[0] == [number, 5.0]


def test_a_column_has_signs_only_if_it_is_one_of_numbers_without_them(tmp_path: Path) -> None:
    rows = [f"${n},{n}%,{'$' if n == 3 else 'USD'} {n if n % 3 else 'none'}x,{n % 2 * 10}%" for n in range(40)]
    text = "\n".join(["amount,share,words,label", *rows, ""])
    index = indexed(tmp_path, text, label_columns=("label",))
    assert [column.type for column in index.columns] == ["number", "number", "text", "category"]
    assert index.column("label").values == ("0%", "10%")
    assert not len(index.bad_rows())


@pytest.mark.parametrize(
    ("table", "decimal", "columns"),
    [
        # A decimal comma anywhere in the file settles what 1.234 is; with tabs, quotes or semicolons alike.
        ("x;y\n1.234;0,5\n2.345;1,5\n", ",", {"x": [1234, 2345], "y": [0.5, 1.5]}),
        ("x\ty\n1.234\t0,5\n2.345\t1,5\n", ",", {"x": [1234, 2345], "y": [0.5, 1.5]}),
        ('x,y\n"1.234","0,5"\n"2.345","1,5"\n', ",", {"x": [1234, 2345], "y": [0.5, 1.5]}),
        ("x;y\n1 234,5;0,5\n999,5;1,5\n", ",", {"x": [1234.5, 999.5]}),
        ("x;y\n1.234,5;0,5\n1.234;1,5\n", ",", {"x": [1234.5, 1234]}),
        # And so does a decimal point.
        ("x\ty\n1,234\t0.5\n12\t1.5\n", ".", {"x": [1234, 12], "y": [0.5, 1.5]}),
        ('x,y\n"1,234",0.5\n"1,234,567",1.5\n', ".", {"x": [1234, 1234567]}),
        # Each column has the mark that it shows.
        ("x;y\n0,5;2.5\n1,5;3.5\n", ".", {"x": [0.5, 1.5], "y": [2.5, 3.5]}),
        # Without a sign of it a point is the decimal mark.
        ("x\ty\n1.234\ta\n2.345\tb\n", ".", {"x": [1.234, 2.345]}),
    ],
)
def test_decimal_marks_and_thousands(tmp_path: Path, table: str, decimal: str, columns: dict[str, list[float]]) -> None:
    index = indexed(tmp_path, table)
    assert index.dialect.decimal == decimal
    assert len(index.bad_rows()) == 0
    for name, numbers in columns.items():
        assert index.column(name).type == "number"
        assert index.table()[name].to_pylist() == numbers


def test_thousands_are_grouped_only_where_the_whole_column_agrees(tmp_path: Path) -> None:
    index = indexed(tmp_path, "x\ty\n" + "1234\t0.5\n" * 30 + "1,234\t0.5\n")
    assert index.bad_rows().messages(9) == [f"{index.csv}:32: column 'x' holds '1,234'; expected a number"]


def test_the_end_of_a_file_may_settle_how_its_start_is_read(tmp_path: Path) -> None:
    filler = "x" * 50
    rows = f"1.234;5;{filler}\n" * 40_000
    assert indexed(tmp_path, "x;y;z\n" + rows).column("x").mean == pytest.approx(1.234)
    index = indexed(tmp_path, "x;y;z\n" + rows + f"2.345;0,5;{filler}\n")
    assert (index.column("x").min, index.column("x").max) == (1234, 2345)
    assert index.column("y").min == 0.5
    assert (index.rows, len(index.bad_rows())) == (40_001, 0)


def test_what_was_read_is_noted_and_ambiguity_said_until_the_flag_settles_it(tmp_path: Path) -> None:
    table = "x\ty\n1,234\ta\n2,345\tb\n"
    note = "ambiguous: 1,234 is read as 1234; no cell shows the decimal mark, which a flag can set"
    assert indexed(tmp_path, table).column("x").note == f"decimal '.', thousands ','; {note}"
    index = indexed(tmp_path, table, decimal=",")
    assert index.column("x").note == "decimal ','"
    assert index.table()["x"].to_pylist() == [1.234, 2.345]
    assert indexed(tmp_path, "x\n0.5\n1234\n").column("x").note is None
    assert indexed(tmp_path, table, usual_decimal=",").column("x").max == 2.345


def test_missing_cells_of_a_number_column_in_any_spelling(tmp_path: Path) -> None:
    cells = [word for each in MISSING if each for word in (each, each.upper(), each.title())]
    index = indexed(tmp_path, "x,y\n" + "".join(f"{i},a\n" for i in range(50)) + "".join(f"{c},a\n" for c in cells))
    column = index.column("x")
    assert (column.type, column.count, column.missing, column.mean) == ("number", 50, len(cells), 24.5)
    assert len(index.bad_rows()) == 0
    assert math.isfinite(column.std or math.nan)


def test_statistics_are_those_of_numpy_however_cells_are_written(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(0, 1000, 500).round(2)
    cells = [f"{number:,.2f}".translate(str.maketrans(",.", ".,")) for number in numbers]
    column = indexed(tmp_path, "x;y\n" + "".join(f"{cell};a\n" for cell in cells)).column("x")
    assert column.mean == pytest.approx(numbers.mean(), rel=1e-12)
    assert column.std == pytest.approx(numbers.std(), rel=1e-12)
