"""What cells become: identifiers and labels stay what they are, missing values are missing, and few passes tell."""

from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest

from tests.data.csv.reading.test_index import indexed, types

IDS = ("1582218195625938945", "1582218195625938946", "1582218195625938947")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each pass over a CSV reads."""
    begun: list[Any] = []
    plain = pyarrow.csv.open_csv

    def counted(file: Any, *settings: Any) -> Any:
        begun.append(file)
        return plain(file, *settings)

    monkeypatch.setattr(pyarrow.csv, "open_csv", counted)
    return begun


@pytest.mark.parametrize("missing", ["NA", "nan", "None", "-", "?", ""])
@pytest.mark.parametrize("values", [IDS, ("01234", "1234", "00001"), ("007", "7", "8")])
def test_one_missing_label_leaves_identifiers_what_they_are(
    tmp_path: Path, values: tuple[str, ...], missing: str
) -> None:
    rows = "".join(f"{i},{values[i % 3]}\n" for i in range(60))
    index = indexed(tmp_path, f"a,id\n{rows}60,{missing}\n", label_columns=("id",))
    column = index.column("id")
    assert (column.type, column.missing) == ("category", 1)
    assert set(column.values or ()) == set(values)
    holds = f"holds {missing!r}" if missing else "is empty"
    assert index.bad_rows().messages(9) == [f"{index.csv}:62: column 'id' {holds}; expected a label"]


def test_columns_of_identifiers_are_no_numbers_wherever_the_first_one_shows_it(tmp_path: Path) -> None:
    # 60,000 rows, so that the head holds none of the last ones.
    plain = "".join(f"{10_000 + i % 7},{'x' * 30},{i}\n" for i in range(60_000))
    index = indexed(tmp_path, "zip,filler,n\n" + plain + "01234,x,1\n01235,x,2\nNA,x,3\n")
    assert types(index) == {"zip": "category", "filler": "category", "n": "number"}
    assert {"01234", "01235", "10000"} < set(index.column("zip").values or ())
    assert index.column("zip").missing == 1
    assert len(index.bad_rows()) == 0


def test_numbers_that_begin_with_a_zero_are_numbers(tmp_path: Path) -> None:
    assert types(indexed(tmp_path, "a,b\n0,0.5\n0,00.25\n1,-0.5\n")) == {"a": "number", "b": "number"}
    assert types(indexed(tmp_path, "a\n01\n02\n", types={"a": "number"})) == {"a": "number"}


def test_among_words_some_marks_are_values_and_among_numbers_they_are_missing(tmp_path: Path) -> None:
    rows = "NA,1,-,NA,\nDE,2,+,x,?\nNA,NA,-,none,NaN\nDE,-,+,none,a\n" * 2
    kinds = dict.fromkeys("abcde", "category")
    index = indexed(tmp_path, "a,b,c,d,e\n" + rows, types=kinds)
    found = {name: (index.column(name).values, index.column(name).missing) for name in kinds}
    assert found == {
        "a": (("DE", "NA"), 0),
        "b": (("1", "2"), 4),
        "c": (("+", "-"), 0),
        "d": (("NA", "none", "x"), 0),
        "e": (("a",), 6),
    }
    assert indexed(tmp_path, "e\nnull\na\n", types={"e": "category"}, verbatim=("e",)).column("e").missing == 0


def test_words_far_down_a_category_make_values_of_marks_before_them(tmp_path: Path) -> None:
    rows = "NA,xxxxxxxxxxxxxxxxxxxx\n1,xxxxxxxxxxxxxxxxxxxx\n" * 60_000
    index = indexed(tmp_path, "c,filler\n" + rows + "DE,x\n", types={"c": "category"})
    assert (index.column("c").values, index.column("c").missing) == (("1", "DE", "NA"), 0)


def test_columns_that_are_empty_at_first_cost_one_more_pass_in_all(tmp_path: Path, passes: list[Any]) -> None:
    # More than a head of empty cells; then each column's words begin in a block of its own.
    names = [f"q{i}" for i in range(40)]
    empty = "," * len(names)
    rows = [f"{empty}{'y' * 200}\n"] * 30_000
    for i in range(len(names)):
        for j in range(600):
            rows[(i + 5) * 600 + j] = (
                f"{',' * i}{'word' + str(j) if i % 2 else 'abc'[j % 3]}{',' * (len(names) - i)}y\n"
            )
    index = indexed(tmp_path, ",".join([*names, "y"]) + "\n" + "".join(rows))
    assert len(passes) == 2
    assert {types(index)[name] for name in names[1::2]} == {"text"}
    assert {types(index)[name] for name in names[::2]} == {"category"}
    assert index.column("q0").values == ("a", "b", "c")
    assert (index.column("q0").count, index.rows) == (600, 30_000)


def test_a_block_of_bad_cells_does_not_make_a_number_column_another(tmp_path: Path, passes: list[Any]) -> None:
    rows = ["1,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"] * 5000 + ["oops,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"] * 8000
    index = indexed(tmp_path, "n,filler\n" + "".join(rows) + "2,x\n" * 100_000)
    assert types(index)["n"] == "number"
    assert len(index.bad_rows()) == 8000
    assert index.rows == 113_000
    assert len(passes) <= 2


@pytest.mark.parametrize("table", ["a,b\n1,2\n3,4\n", "a;b\n1,5;x\n2,5;x\n", "a\n-\n1\n"])
def test_what_the_head_shows_costs_one_pass(tmp_path: Path, passes: list[Any], table: str) -> None:
    indexed(tmp_path, table)
    assert len(passes) == 1
