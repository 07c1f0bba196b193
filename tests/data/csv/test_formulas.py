from itertools import product
from pathlib import Path

import pytest

from blitz.data.csv.formulas import escaped, unescaped
from blitz.data.csv.reading.bad_rows import fault_message
from blitz.data.csv.reading.index import index_csv
from blitz.data.csv.reading.reader import CsvOptions


@pytest.mark.parametrize("cell", ["=1+1", "@SUM(A1)", "+cmd|x", "-2+3", "\t=1", "\r=1", "＝1+1", "'=1", "-abc", "--1"])
def test_what_a_spreadsheet_may_take_for_a_formula_is_escaped(cell: str) -> None:
    assert escaped(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "-", "-1", "+1.5", "-1e-7", "-1.234,5", "-3%", "a=1", "1-2", "'a", "'-1"])
def test_what_none_takes_for_one_stays_as_it_is(cell: str) -> None:
    assert escaped(cell) == cell


def test_every_escaped_cell_comes_back() -> None:
    cells = ["".join(letters) for length in range(6) for letters in product("'=-1a", repeat=length)]
    assert [unescaped(escaped(cell)) for cell in cells] == cells


def test_bad_rows_list_formulas_escaped_and_messages_show_them_as_they_are(tmp_path: Path) -> None:
    csv = tmp_path / "in.csv"
    csv.write_text("=x,y\n" + "1,2\n" * 50 + "=cmd|' /C calc'!A0,3\n")
    bad = index_csv(csv, tmp_path / "cache", CsvOptions(types={"=x": "number"})).bad_rows()
    (record,) = bad.records()
    assert record.endswith(""",52,"'=x","'=cmd|' /C calc'!A0","expected a number\"""")
    assert bad.by_line()[52] == fault_message(record) == """column '=x' holds "=cmd|' /C calc'!A0"; expected a number"""
