"""CSVs as people have them: read where nothing has to be guessed, and else refused with the flag to give."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from blitz.data.csv.prediction_csv import write_appended
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.reader import CsvOptions
from blitz.errors import DataError


def indexed(folder: Path, text: str | bytes, name: str = "train.csv", **options: object) -> CsvIndex:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return index_csv(path, folder / "cache", CsvOptions(**options))  # type: ignore[arg-type]


def column(index: CsvIndex, name: str) -> list[object]:
    return index.table()[name].to_pylist()  # type: ignore[no-any-return]


WORDS = "word,n,label\n'yes',1,a\n'tis,2,a\ndog,3,b\n'twas,4,b\ncat,5,a\n"


def test_apostrophes_at_the_start_of_cells_swallow_no_row(tmp_path: Path) -> None:
    index = indexed(tmp_path, WORDS, types={"word": "text"})
    assert column(index, "word") == ["'yes'", "'tis", "dog", "'twas", "cat"]
    assert (index.total_rows, len(index.bad_rows())) == (5, 0)


def test_single_quotes_that_fit_the_first_rows_alone_are_apostrophes(tmp_path: Path) -> None:
    rows = "'yes','no'\n" * 20_000
    index = indexed(tmp_path, "'a','b'\n" + rows + "'tis,x\ndog,x\nit's' own,x\n")
    assert (index.dialect.quote, index.total_rows, len(index.bad_rows())) == ('"', 20_003, 0)
    assert index.column("'a'").values == ("'tis", "'yes'", "dog", "it's' own")
    with pytest.raises(DataError, match=r"single quotes fit the first rows .*, but not all; .*--data\.quote"):
        indexed(tmp_path, "'a','b'\n" + "'x, y','no'\n" * 20_000 + "'tis,x\ndog,x\nit's' own,x\n")


def test_single_quotes_that_may_be_either_are_asked_for(tmp_path: Path) -> None:
    rows = "plain,1\n" * 30_000 + "'it''s',2\n"
    with pytest.raises(DataError, match=r"are in single quotes.* with --data\.quote"):
        indexed(tmp_path, "word,n\n" + rows)
    assert column(indexed(tmp_path, "word,n\n" + rows, quote="'"), "word")[-1] == 1
    assert indexed(tmp_path, "word,n\n" + rows, quote='"').column("word").values == ("'it''s'", "plain")


@pytest.mark.parametrize("where", [1, 90_000])
def test_a_cell_that_continues_after_its_closing_quote_is_a_bad_row(tmp_path: Path, where: int) -> None:
    rows = ['"x, y",1\n'] * 100_000
    rows[where] = '"say \\"no\\"",1\n'
    (fault,) = indexed(tmp_path, "a,b\n" + "".join(rows)).bad_rows().messages(9)
    assert f":{where + 2}: a cell continues after its closing quote" in fault


def test_commas_in_the_header_and_in_numbers_are_no_delimiter(tmp_path: Path) -> None:
    rows = "".join(f"{i},5;{40 + i},25;{'ja' if i % 2 else 'nein'}\n" for i in range(40))
    index = indexed(tmp_path, "Temp, °C;Feuchte, %;Ertrag\n" + rows)
    assert index.dialect.names == ("Temp, °C", "Feuchte, %", "Ertrag")
    assert column(index, "Temp, °C")[:2] == [0.5, 1.5]


def test_two_delimiters_that_fit_are_asked_for(tmp_path: Path) -> None:
    text = "a,b;c\nx,y;z\nu,v;w\n"
    with pytest.raises(DataError, match=r"',' and ';' both fit as the delimiter; .* --data\.delimiter"):
        indexed(tmp_path, text)
    assert indexed(tmp_path, text, delimiter=";").dialect.names == ("a,b", "c")


def test_a_header_of_more_than_the_head_is_read(tmp_path: Path) -> None:
    names = [f"gene_{i:06}" for i in range(20_000)]
    index = indexed(tmp_path, ",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    assert index.dialect.names == tuple(names)


@pytest.mark.parametrize("name", ["900.5", "-1", "1e3"])
def test_names_may_be_numbers_unless_all_are(tmp_path: Path, name: str) -> None:
    assert indexed(tmp_path, f"{name},label\n0.1,x\n0.2,y\n").dialect.names == (name, "label")
    numbers = f"{name},2\n3,4\n"
    with pytest.raises(DataError, match=r"with --data\.header yes or no"):
        indexed(tmp_path, numbers)
    assert indexed(tmp_path, numbers, header="yes").dialect.names == (name, "2")
    index = indexed(tmp_path, numbers, header="no")
    assert (index.dialect.names, column(index, "column_2")) == (("column_1", "column_2"), [2, 4])


@pytest.mark.parametrize("row", [2, 30_000])
def test_a_nul_is_a_bad_row_and_no_class_wherever_it_is(tmp_path: Path, row: int) -> None:
    rows = [f"{i},{'xz'[i % 2]}\n" for i in range(30_001)]
    rows[row] = "1,x\0\n"
    index = indexed(tmp_path, "a,y\n" + "".join(rows), label_columns=("y",))
    assert index.bad_rows().messages(9) == [
        f"{index.csv}:{row + 2}: column 'y' holds 'x\\x00'; expected no NUL character"
    ]
    assert index.column("y").values == ("x", "z")


def zipped(data: bytes, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return stream.getvalue()


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True),
    "zip": lambda data: zipped(data, "a.csv", "__MACOSX/._a.csv"),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_csv_is_read_whatever_its_name(tmp_path: Path, kind: str) -> None:
    data = b"a,b\n" + b"".join(b"%d,x\n" % i for i in range(200_000))
    index = indexed(tmp_path, COMPRESSED[kind](data))
    assert index.column("a").max == 199_999
    assert index.described().startswith(f"{kind}, utf-8, ")
    # The same bytes, however they are packed, are the same CSV.
    assert indexed(tmp_path, data, "plain.csv").path == index.path


def test_parts_compressed_one_by_one_are_one_csv(tmp_path: Path) -> None:
    for kind in ("gzip", "bz2", "xz", "zstd"):
        pack = COMPRESSED[kind]
        assert indexed(tmp_path, pack(b"a,b\n1,2\n") + pack(b"3,4\n"), f"{kind}.csv").rows == 2


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_csv_that_is_cut_is_refused(tmp_path: Path, kind: str) -> None:
    data = COMPRESSED[kind](b"a,b\n" + b"".join(b"%d,x\n" % i for i in range(2000)))
    with pytest.raises(DataError, match=rf"train\.csv is a damaged or cut {kind} file"):
        indexed(tmp_path, data[: len(data) // 2])


def test_a_zip_of_several_files_and_a_workbook_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a zip of 2 files: a\.csv, b\.csv …; it must hold one CSV"):
        indexed(tmp_path, zipped(b"a,b\n1,2\n", "a.csv", "b.csv"))
    with pytest.raises(DataError, match="is a workbook, not a CSV"):
        indexed(tmp_path, zipped(b"<xml>", "[Content_Types].xml", "xl/workbook.xml"))


def test_the_sep_line_of_excel_is_read(tmp_path: Path) -> None:
    index = indexed(tmp_path, "sep=;\r\nage;sex\r\n20;m\r\n21;\r\n1;2;3\r\n", label_columns=("sex",))
    assert (index.dialect.names, index.dialect.delimiter) == (("age", "sex"), ";")
    assert [fault["line"] for fault in index.bad_rows().faults.to_pylist()] == [4, 5]


def test_comment_lines_are_refused_with_their_flag_and_left_out_with_it(tmp_path: Path) -> None:
    text = "# exported\n# by a tool, today\na,b\n0,x\n# half way\n1,y\n2,y\nz,z,z\n"
    with pytest.raises(DataError, match=r"--data\.comment '#'"):
        indexed(tmp_path, text)
    index = indexed(tmp_path, text, comment="#")
    assert (index.dialect.names, column(index, "a")) == (("a", "b"), [0, 1, 2])
    assert [fault["line"] for fault in index.bad_rows().faults.to_pylist()] == [8]
    quoted = indexed(tmp_path, 'a,b\n"x\n# no comment",1\n#,2\n', comment="#", types={"a": "text"})
    assert column(quoted, "a") == ["x\n# no comment"]


def test_names_of_rows_without_one_of_their_own_are_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"where rows begin with a row name, as R writes them, name that column too$"):
        indexed(tmp_path, "a,b\n" + "".join(f'"{i}",{i},{i * 2}\n' for i in range(5)))


def test_a_header_may_begin_with_a_number_sign(tmp_path: Path) -> None:
    assert indexed(tmp_path, "#CHROM\tPOS\nchr1\t1\nchr2\t2\n").dialect.names == ("#CHROM", "POS")


def test_a_title_above_the_header_is_refused_with_its_flag(tmp_path: Path) -> None:
    text = "Sales of 2024\na,b,c\n" + "1,2,x\n" * 5
    with pytest.raises(DataError, match=r"the first line has 1 cells .* with --data\.skip-lines"):
        indexed(tmp_path, text)
    assert indexed(tmp_path, text, skip_lines=(1,)).dialect.names == ("a", "b", "c")


def test_a_row_of_units_is_refused_with_its_flag(tmp_path: Path) -> None:
    text = "a,b,y\nm/s,kg,-\n" + "0,1,x\n1,2,z\n" * 9
    with pytest.raises(DataError, match=r"line 2 seems to hold units.*leave it out with --data\.skip-lines 2"):
        indexed(tmp_path, text)
    index = indexed(tmp_path, text + "q,1,x\n", skip_lines=(2,))
    assert (index.column("y").values, index.rows) == (("x", "z"), 19)
    assert index.bad_rows().faults["line"].to_pylist() == [21]


def test_delimiters_after_the_last_column_are_read_and_said(tmp_path: Path) -> None:
    for header in ("a,b", "a,b,"):
        index = indexed(tmp_path, f"{header}\n0,x,\n1,y,\n2,z,\n")
        assert (index.dialect.names, len(index.bad_rows())) == (("a", "b"), 0)
        assert "the delimiter after the last column is left out" in index.described()
    index = indexed(tmp_path, "a,b\n0,x,\n1,y,lost\n2,z\n3,z,\n4,z,\n5,z,\n")
    assert index.bad_rows().faults["line"].to_pylist() == [3, 4]


def test_an_index_column_without_a_name_is_left_out_and_said(tmp_path: Path) -> None:
    index = indexed(tmp_path, ',a,b\n"0\n0",1,x\n1,2,y\n2,3\n')
    assert (index.dialect.names, column(index, "a")) == (("a", "b"), [1, 2])
    assert "the first column is left out: it has no name" in index.described()
    assert index.bad_rows().faults["line"].to_pylist() == [5]


def test_predictions_stand_beside_the_cells_of_any_dialect(tmp_path: Path) -> None:
    data = gzip.compress(b'sep=;\r\n;a;b;\r\n0;1;x;\r\n1;2\r\n2;3;"y;z";\r\n')
    index = indexed(tmp_path, data, types={"b": "text"})
    said = pyarrow.table({"prediction": ["p", "q"], "error": ["", ""]})
    written = write_appended(index, str(tmp_path / "out.csv"), ["prediction"], [said], index.bad_rows())
    assert written == (3, 1)
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        ";a;b;prediction;error",
        "0;1;x;p;",
        '1;2;;;"the row has 2 fields; other rows have 4"',
        '2;3;"y;z";q;',
    ]
