import csv
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from blitz.data.csv.reading.columns import MAX_CATEGORIES
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.layout import LINE
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.table import CsvTable
from blitz.errors import DataError


def indexed(folder: Path, text: str | bytes, **options: object) -> CsvIndex:
    path = folder / "train.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return index_csv(path, folder / "cache", CsvOptions(**options))  # type: ignore[arg-type]


def types(index: CsvIndex) -> dict[str, str]:
    return {column.name: column.type for column in index.columns}


def test_types_are_inferred(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i / 3},{'xy'[i % 2]},word {i},,{i % 2}\n" for i in range(50))
    index = indexed(tmp_path, "whole,fraction,kind,text,empty,label\n" + rows, label_columns=("label",))
    assert types(index) == {
        "whole": "number",
        "fraction": "number",
        "kind": "category",
        "text": "text",
        "empty": "number",
        "label": "category",
    }


def test_several_label_columns_of_whole_numbers_are_numbers(tmp_path: Path) -> None:
    index = indexed(tmp_path, "x,y\n" + "1,2\n2,2\n" * 10, label_columns=("x", "y"))
    assert types(index) == {"x": "number", "y": "number"}


def test_declared_types_win(tmp_path: Path) -> None:
    index = indexed(tmp_path, "zip,n\n01234,1\n01234,2\n", types={"zip": "text", "n": "category"})
    assert types(index) == {"zip": "text", "n": "category"}
    assert index.column("n").values == ("1", "2")
    assert index.table()["zip"].to_pylist() == ["01234", "01234"]


def test_statistics_of_numbers_leave_out_missing_and_bad_cells(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(1e6, 3, 60_000)
    cells = [repr(float(number)) for number in numbers] + ["", "NA", "nan", "abc"]
    column = indexed(tmp_path, "x,y\n" + "".join(f"{cell},{'word' * 5}\n" for cell in cells)).column("x")
    assert (column.count, column.missing) == (60_000, 3)
    assert (column.min, column.max) == (numbers.min(), numbers.max())
    assert column.mean == pytest.approx(numbers.mean(), rel=1e-12)
    assert column.std == pytest.approx(numbers.std(), rel=1e-9)


def test_categories_are_counted_in_order(tmp_path: Path) -> None:
    column = indexed(tmp_path, "n,c\n10,b\n9,a\n10,b\n9,\n", types={"n": "category", "c": "category"}).column("c")
    assert (column.values, column.counts, column.count, column.missing) == (("a", "b"), (1, 2), 3, 1)
    assert indexed(tmp_path, "n\n10\n9\n10\n", types={"n": "category"}).column("n").values == ("9", "10")


def test_one_stray_word_does_not_make_a_number_column_text(tmp_path: Path) -> None:
    index = indexed(tmp_path, "name,age\nA,22\nB,abc\nC,31\n")
    assert types(index)["age"] == "number"
    name = str(tmp_path / "train.csv")
    assert index.bad_rows().messages(9) == [f"{name}:3: column 'age' holds 'abc'; expected a number"]


def test_a_column_that_turns_out_to_hold_words_is_no_number_column(tmp_path: Path) -> None:
    rows = "".join(f"{i},{'x' * 20}\n" for i in range(20_000)) + "red,y\nblue,y\n" * 20_000
    index = indexed(tmp_path, "n,filler\n" + rows)
    assert types(index)["n"] == "text"  # 20,002 distinct values are too many for a category
    assert index.rows == 60_000
    assert len(index.bad_rows()) == 0


def test_a_category_with_too_many_values_is_text_and_as_a_label_an_error(tmp_path: Path) -> None:
    rows = "a\n" * 40_000 + "".join(f"value{i}\n" for i in range(MAX_CATEGORIES + 1))
    assert types(indexed(tmp_path, "c\n" + rows)) == {"c": "text"}
    with pytest.raises(DataError, match="column 'c' has more than 10000 distinct values"):
        indexed(tmp_path, "c\n" + rows, label_columns=("c",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"train\.csv is empty"),
        (b"\n\n", r"train\.csv:1: the file starts with an empty line"),
        (b"\na,b\n1,2\n", r"train\.csv:1: the file starts with an empty line"),
        (
            b"1,2,3\n4,5,6\n",
            r"train\.csv:1: there may be no header, for it would name a column '1'; say .* with --data\.header",
        ),
        (
            b"5.1,3.5,setosa\n4.9,3.0,setosa\n",
            r"train\.csv:1: there may be no header, for 'setosa' .* --data\.header",
        ),
        (b"a,,c\n1,2,3\n", r"train\.csv:1: column 2 has no name"),
        (b"a,b,a\n1,2,3\n", r"train\.csv:1: two columns are named 'a'"),
        (b"a,b\n", r"train\.csv has a header and no rows"),
        (b"a,b", r"train\.csv has a header and no rows"),
        (b"a,b\n\n\n", r"train\.csv has a header and no rows"),
        (b"PK\3\4\0\0\0\0\0\x08\x08", r"train\.csv is a damaged or cut zip file"),
        (b"PAR1\x15\x04\x15\0\0\0\0\x08\x08", r"train\.csv is a damaged or cut parquet file"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        indexed(tmp_path, text)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv is not there"):
        index_csv(tmp_path / "none.csv", tmp_path / "cache")
    with pytest.raises(DataError, match=r"has no column 'species'; it has: a, b"):
        indexed(tmp_path, "a,b\n1,2\n", label_columns=("species",))


def test_whole_numbers_may_be_names(tmp_path: Path) -> None:
    assert [column.name for column in indexed(tmp_path, "label,0,1\n7,0,255\n").columns] == ["label", "0", "1"]


def test_single_quotes_are_detected_and_apostrophes_left_alone(tmp_path: Path) -> None:
    index = indexed(tmp_path, "'a','b'\n'x,y','it''s'\n")
    assert (index.dialect.quote, index.dialect.names) == ("'", ("a", "b"))
    assert index.table()["b"].to_pylist() == ["it's"]
    index = indexed(tmp_path, "a,b\n'tis,don't\nrock 'n' roll,x\n")
    assert index.dialect.quote == '"'
    assert index.table()["a"].to_pylist() == ["'tis", "rock 'n' roll"]


def test_a_header_over_several_lines_moves_line_numbers(tmp_path: Path) -> None:
    index = indexed(tmp_path, '"two\nlines",b\n1,2,3\n')
    assert index.bad_rows().faults.to_pylist()[0]["line"] == 3


def test_utf16_without_a_byte_order_mark(tmp_path: Path) -> None:
    index = indexed(tmp_path, "a;b\r\n1;é\r\n".encode("utf-16-be"))
    assert index.dialect.encoding == "utf-16-be"
    assert index.table()["b"].to_pylist() == ["é"]


def test_bytes_that_are_no_utf8_are_found_wherever_they_are(tmp_path: Path) -> None:
    index = indexed(tmp_path, b"a\n" + b"plain\n" * 300_000 + "é\n".encode("cp1252"))
    assert index.dialect.encoding == "cp1252"
    assert index.column("a").values == ("plain", "é")


def test_a_byte_that_is_no_utf8_in_a_file_that_is_makes_a_bad_row_and_no_class_wherever_it_is(tmp_path: Path) -> None:
    for mark in ("\ufeff", ""):
        for row in (1, 150_000):
            lines = [f"{mark}a,y\n".encode(), *["1,é\n".encode()] * 150_001]
            lines[row] = b"1,caf\xe9\n"
            index = indexed(tmp_path, b"".join(lines), label_columns=("y",))
            assert index.dialect.names == ("a", "y")
            assert index.dialect.encoding == ("utf-8-sig" if mark else "utf-8")
            assert index.column("y").values == ("é",)
            assert index.bad_rows().messages(9) == [
                f"{index.csv}:{row + 1}: column 'y' holds 'caf\ufffd'; expected UTF-8, as other parts of the file are"
            ]


def test_a_file_with_a_byte_order_mark_is_utf8_though_its_only_other_letter_is_damaged(tmp_path: Path) -> None:
    index = indexed(tmp_path, "\ufeffa,b\n1,plain\n".encode() + b"2,caf\xe9\n")
    assert (index.dialect.names, index.dialect.encoding, len(index.bad_rows())) == (("a", "b"), "utf-8-sig", 1)


def test_names_that_are_not_in_the_encoding_of_the_file_and_mixed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"train\.csv:1: a column's name holds bytes that are no UTF-8.*--data\.encoding"
    ):
        indexed(tmp_path, b"caf\xe9,b\n1," + "é\n".encode())
    mixed = b"a,b\n1,caf\xe9\n2,\xfcber\n3," + "é\n".encode()
    with pytest.raises(DataError, match=r"some characters in UTF-8, and more bytes that are not.*--data\.encoding"):
        indexed(tmp_path, mixed)
    assert indexed(tmp_path, mixed, encoding="cp1252").table()["b"].to_pylist() == ["café", "über", "Ã©"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_blank_lines_are_no_rows_and_rows_of_empty_cells_are(tmp_path: Path, newline: str) -> None:
    lines = ["a,b", "", "1,x", ",", "", "", '2,"y', "", 'z"', ",", '"",""', ""]
    index = indexed(tmp_path, newline.join(lines) + newline)
    assert index.table()[LINE].to_pylist() == [3, 4, 7, 10, 11]
    assert index.table()["a"].to_pylist() == [1, None, 2, None, None]
    index = indexed(tmp_path, newline.join(["a", "1", "", '""', "2"]))
    assert index.table()["a"].to_pylist() == [1, None, 2]


def test_an_open_quote_at_the_end_is_a_bad_row(tmp_path: Path) -> None:
    faults = indexed(tmp_path, 'a,b\n1,x\n2,"y\n3,z\n4,z\n').bad_rows().faults.to_pylist()
    assert [(fault["line"], fault["reason"]) for fault in faults] == [(3, 'a quote " is opened and not closed')]
    assert len(indexed(tmp_path, 'a,b\n1,x\n2,"y\n3,z"\n').bad_rows()) == 0


def test_an_open_quote_that_takes_in_a_large_file_is_an_error(tmp_path: Path) -> None:
    rows = f"2,{'many words ' * 1000}\n" * 4000
    with pytest.raises(DataError, match=r"train\.csv:\d+: from here on a row is longer than 16 MiB; close the quote"):
        indexed(tmp_path, 'a,b\n0,x\n1,"y\n' + rows)


def test_a_cell_of_several_megabytes_is_read(tmp_path: Path) -> None:
    index = indexed(tmp_path, f'a,b\n1,"{"long " * 800_000}"\n2,short\n')
    assert index.rows == 2


def test_an_index_is_made_once_for_a_content(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("a,b\n1,2\n")
    os.utime(path, (1_000_000, 1_000_000))
    first = index_csv(path, tmp_path / "cache")
    # Other bytes of the same size and time: only who reads the CSV can tell.
    path.write_text("a,b\n3,4\n")
    os.utime(path, (1_000_000, 1_000_000))
    assert index_csv(path, tmp_path / "cache") == first
    # The same bytes elsewhere, later.
    (tmp_path / "copy.csv").write_text("a,b\n1,2\n")
    assert index_csv(tmp_path / "copy.csv", tmp_path / "cache").path == first.path


def test_another_content_or_other_options_make_another_index(tmp_path: Path) -> None:
    first = indexed(tmp_path, "a,b\n1,2\n")
    assert indexed(tmp_path, "a,b\n1,2\n", types={"a": "text"}).path != first.path
    assert indexed(tmp_path, "a,b\n1,3\n").path != first.path


def test_titanic(tmp_path: Path, test_data: Path) -> None:
    path = test_data / "tabular" / "titanic.csv"
    index = index_csv(path, tmp_path, CsvOptions(label_columns=("survived",)))
    with path.open() as file:
        ages = np.array([float(row["age"]) for row in csv.DictReader(file) if row["age"]])
    age, survived = index.column("age"), index.column("survived")
    assert (index.rows, len(index.bad_rows())) == (891, 0)
    assert (age.count, age.missing) == (714, 177)
    assert age.mean == pytest.approx(ages.mean())
    assert (survived.values, survived.counts) == (("0", "1"), (549, 342))
    assert index.column("deck").missing == 688


def test_iris(tmp_path: Path, test_data: Path) -> None:
    index = index_csv(test_data / "tabular" / "iris.csv", tmp_path, CsvOptions(label_columns=("species",)))
    assert [column.type for column in index.columns] == ["number"] * 4 + ["category"]
    assert index.column("species").counts == (50, 50, 50)


def test_numbers_that_a_float32_does_not_hold_are_faults_and_spoil_no_statistics(tmp_path: Path) -> None:
    index = indexed(tmp_path, "x\n" + "3e38\n-3e38\n1\n" * 5 + "1.7e308\n")
    column = index.column("x")
    assert (column.type, column.count, column.max) == ("number", 15, 3e38)
    assert column.mean == pytest.approx(0, abs=1e25)
    assert index.bad_rows().messages(9) == [f"{index.csv}:17: column 'x' holds '1.7e308'; expected a number"]


def test_a_path_may_hold_any_character_and_a_uri_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a b#c?d%20é.csv"
    path.write_text("a,b\n1,2\n")
    assert index_csv(path, tmp_path / "cache").rows == 1
    plain = tmp_path / "plain.csv"
    plain.write_text("a,b\n1,2\n")
    assert index_csv(plain.as_uri(), tmp_path / "cache").rows == 1


@pytest.mark.parametrize("stray", ["", "abc;y\n"])
def test_decimal_commas_between_semicolons(tmp_path: Path, stray: str) -> None:
    index = indexed(tmp_path, "x;y\n1,5;a\n-0,25;b\n;a\n2;b\n" + stray)
    assert index.table()["x"].to_pylist()[:4] == [1.5, -0.25, None, 2.0]
    assert len(index.bad_rows()) == bool(stray)
    assert types(indexed(tmp_path, "x;y\n1,5;2.5\n1,5;2.5\n"))["y"] == "number"


def test_an_encoding_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv is not encoded in cp1252"):
        indexed(tmp_path, b"a\n" + b"plain\n" * 100_000 + b"\x81\n", encoding="cp1252")


def test_utf16_without_the_mark_of_its_byte_order_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv is not encoded in utf-16: UTF-16 stream does not start with BOM"):
        indexed(tmp_path, "a,b\n1,2\n".encode("utf-16-le"), encoding="utf-16")


def test_a_node_that_lacks_the_index_makes_its_own_of_the_same_csv_alone(tmp_path: Path) -> None:
    csv = tmp_path / "train.csv"
    csv.write_text("a,b\n1,x\n2,y\n")
    index = index_csv(csv, tmp_path / "cache")
    elsewhere = pickle.loads(pickle.dumps(CsvTable(index, ["a", "b"])))
    shutil.rmtree(tmp_path / "cache")
    assert elsewhere.__getitems__(np.array([1, 0]))["a"].tolist() == [2, 1]
    shutil.rmtree(tmp_path / "cache")
    csv.write_text("a,b\n3,x\n4,y\n")
    with pytest.raises(DataError, match=rf"on .*: {csv} differs from the file on the node that started the run"):
        pickle.loads(pickle.dumps(CsvTable(index, ["a", "b"]))).__getitems__(np.array([1, 0]))
