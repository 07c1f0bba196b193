"""The same table as a CSV, as shards, as Parquet, Arrow and JSON lines: the same rows, types, statistics and faults."""

import datetime
import decimal
import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from blitz.data.csv.image_dataset import fit_images, image_rows
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.csv.prediction_csv import write_appended
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.layout import LINE
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.table import CsvTable
from blitz.data.text.sentences import PairData, sentences_of
from blitz.errors import DataError
from blitz.storage import open_location
from tests.object_store import uri_of
from tests.pictures import picture

Table = dict[str, list[Any]]


def random_table(seed: int, rows: int = 60) -> Table:
    """Numbers, whole numbers, words, text and booleans, some missing; one column of numbers ends in words."""
    rng = np.random.default_rng(seed)
    words = ["red", "NA", "green", "blue", "7"]

    def sparse(values: list[Any]) -> list[Any]:
        return [None if rng.random() < 0.1 else value for value in values]

    return {
        "x": sparse((rng.normal(size=rows) * 10.0 ** rng.integers(-3, 5, rows)).tolist()),
        "n": sparse(rng.integers(-5, 2000, rows).tolist()),
        "c": sparse([words[i] for i in rng.integers(0, len(words), rows)]),
        "t": [f'text {i} of, {rng.integers(0, 9)} "words"' for i in range(rows)],
        "b": sparse((rng.random(rows) < 0.5).tolist()),
        # Numbers in the first shard, words in the last.
        "late": [str(i % 4) for i in range(rows - 15)] + [["up", "down"][i % 2] for i in range(15)],
        "label": [["yes", "no"][i] for i in rng.integers(0, 2, rows)],
    }


def sliced(table: Table, start: int, end: int) -> Table:
    return {name: column[start:end] for name, column in table.items()}


def write_csv(table: Table, path: Path) -> None:
    pyarrow.csv.write_csv(pyarrow.table(table), path)


def write_jsonl(table: Table, path: Path) -> None:
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    # A missing value is null, or its key is not there.
    kept = [{name: cell for name, cell in row.items() if cell is not None or i % 2} for i, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))


def written(table: Table, folder: Path) -> dict[str, str]:
    """The table in every form; the name of each."""
    arrow = pyarrow.table(table)
    bounds = [(0, 20), (20, 40), (40, len(table["x"]))]
    write_csv(table, folder / "one.csv")
    write_jsonl(table, folder / "one.jsonl")
    pyarrow.parquet.write_table(arrow, folder / "one.parquet", row_group_size=25)
    pyarrow.feather.write_feather(arrow, str(folder / "one.feather"), chunksize=25)
    for kind in ("csv", "parquet", "jsonl"):
        (folder / f"{kind}_shards").mkdir()
    for number, (start, end) in enumerate(bounds):
        part = sliced(table, start, end)
        write_csv(part, folder / "csv_shards" / f"part-{number}.csv")
        write_jsonl(part, folder / "jsonl_shards" / f"part-{number}.jsonl")
        pyarrow.parquet.write_table(arrow.slice(start, end - start), folder / "parquet_shards" / f"{number}.parquet")
    listed = ",".join(str(folder / "csv_shards" / f"part-{number}.csv") for number in range(len(bounds)))
    return {
        "csv": f"{folder}/one.csv",
        "jsonl": f"{folder}/one.jsonl",
        "parquet": f"{folder}/one.parquet",
        "feather": f"{folder}/one.feather",
        "csv shards, a pattern": f"{folder}/csv_shards/part-*.csv",
        "csv shards, a list": listed,
        "parquet shards, a folder": f"{folder}/parquet_shards",
        "jsonl shards": f"{folder}/**/part-?.jsonl",
    }


def cells_of(index: CsvIndex) -> dict[str, list[Any]]:
    """All cells in order; a category as its value."""
    table = index.table().combine_chunks().to_batches()[0]
    found = {name: index.text_of(name, table[name]).to_pylist() for name in index.dialect.names}
    return {name: ["" if cell is None else cell for cell in column] for name, column in found.items()}


@pytest.mark.parametrize("seed", range(3))
def test_a_table_is_the_same_in_every_format_and_as_shards(seed: int, tmp_path: Path) -> None:
    table = random_table(seed)
    options = CsvOptions(label_columns=("label",))
    indexes = {what: index_csv(name, tmp_path / "cache", options) for what, name in written(table, tmp_path).items()}
    expected = indexes.pop("csv")
    types = {"x": "number", "n": "number", "c": "category", "t": "text", "b": "category", "late": "category"}
    assert {one.name: one.type for one in expected.columns} == types | {"label": "category"}
    rows = np.random.default_rng(seed).permutation(len(table["x"]))
    batch = CsvTable(expected, ["x", "c", "t", "label"]).__getitems__(rows)
    for what, index in indexes.items():
        assert cells_of(index) == cells_of(expected), what
        assert index.codes == expected.codes, what
        # Keys of JSON are in the order in which they first occur.
        assert {*index.dialect.names} == {*expected.dialect.names}, what
        for other in expected.columns:
            one = index.column(other.name)
            numbers = ("mean", "std")
            assert {**vars(one), **dict.fromkeys(numbers)} == {**vars(other), **dict.fromkeys(numbers)}, what
            if other.mean is not None:
                # Sums of 60 terms in another order.
                assert one.mean == pytest.approx(other.mean, rel=1e-12), what
                assert one.std == pytest.approx(other.std, rel=1e-12), what
        for name, column in CsvTable(index, ["x", "c", "t", "label"]).__getitems__(rows).items():
            np.testing.assert_array_equal(column, batch[name], err_msg=f"{what}: {name}")


def test_faults_name_the_file_and_its_line_or_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "1,a\n2,b\n" * 19)
    (tmp_path / "b.csv").write_text("y,x\n" + "a,1\n" * 8 + "b,oops\nb\na,2\n")
    (tmp_path / "c.jsonl").write_text('{"x": 1, "y": "a"}\n\n{"x": "abc", "y": "b"}\nno\n[1]\n{"x": 2}\n')
    pyarrow.parquet.write_table(pyarrow.table({"x": [1.0, float("inf")], "y": ["a", None]}), tmp_path / "d.parquet")
    index = index_csv(f"{tmp_path}/[a-d].*", tmp_path / "cache", CsvOptions(label_columns=("y",)))
    assert (index.rows, index.total_rows) == (38 + 10 + 3 + 2, 38 + 11 + 5 + 2)
    bad = index.bad_rows()
    assert [message.removeprefix(f"{tmp_path}/") for message in bad.messages(20)] == [
        "b.csv:10: column 'x' holds 'oops'; expected a number",
        "b.csv:11: the row has 1 fields; the header has 2",
        "c.jsonl:3: column 'x' holds 'abc'; expected a number",
        "c.jsonl:4: expected a JSON object: Expecting value: line 1 column 1 (char 0)",
        "c.jsonl:5: expected a JSON object; it is a list",
        "c.jsonl:6: column 'y' is empty; expected a label",
        "d.parquet, row 2: column 'x' holds 'inf'; expected a number",
        "d.parquet, row 2: column 'y' is empty; expected a label",
    ]
    assert bad.records()[0] == f'"{tmp_path}/b.csv",10,"x","oops","expected a number"'
    # Rows of the index, over all files.
    assert bad.rows().tolist() == [46, 49, 50, 52]
    assert len(bad) == 7


def test_predictions_of_several_files_are_one_csv_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2\n1,b\n4,b\n5,b\n")
    (tmp_path / "b.jsonl").write_text('{"x": 3, "y": "c"}\nbroken\n')
    index = index_csv(f"{tmp_path}/a.csv,{tmp_path}/b.jsonl", tmp_path / "cache")
    said = pyarrow.table({"prediction": [*"pqrst"], "error": [""] * 5})
    assert write_appended(index, str(tmp_path / "out.csv"), ["prediction"], [said], index.bad_rows()) == (7, 2)
    assert (tmp_path / "out.csv").read_text().splitlines()[:-1] == [
        "x,y,prediction,error",
        "1,a,p,",
        "2,,,the row has 1 fields; the header has 2",
        "1,b,q,",
        "4,b,r,",
        "5,b,s,",
        "3,c,t,",
    ]


def test_a_new_shard_costs_only_itself(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text("x,y\n" + f"{number},a\n" * 5)
    first = index_csv(f"{tmp_path}/*.csv", tmp_path / "cache")
    made = {one.path: Path(one.path).stat().st_mtime_ns for one in first.files}
    (tmp_path / "3.csv").write_text("x,y\n3,b\n")
    second = index_csv(f"{tmp_path}/*.csv", tmp_path / "cache")
    assert {one.path: Path(one.path).stat().st_mtime_ns for one in second.files[:3]} == made
    assert (second.rows, second.column("x").max, second.codes["y"]) == (16, 3, ("a", "b"))
    assert second.content != first.content


def test_files_whose_columns_differ_are_refused_and_the_message_says_how(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,a\n")
    (tmp_path / "b.csv").write_text("x,z\n1,a\n")
    with pytest.raises(DataError, match=r"b\.csv lacks 'y' and adds 'z', unlike other files"):
        index_csv(f"{tmp_path}/*.csv", tmp_path / "cache")
    with pytest.raises(DataError, match="matches no file"):
        index_csv(f"{tmp_path}/*.parquet", tmp_path / "cache")
    with pytest.raises(DataError, match=r"a\.csv is named twice"):
        index_csv(f"{tmp_path}/a.csv,{tmp_path}/a.csv", tmp_path / "cache")
    (tmp_path / "c.json").write_text('[{"x": 1}]')
    with pytest.raises(DataError, match="is one JSON array; write one object a line"):
        index_csv(tmp_path / "c.json", tmp_path / "cache")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="is a damaged or cut parquet file"):
        index_csv(tmp_path / "cut.parquet", tmp_path / "cache")


def test_folders_name_columns_and_lists_and_bytes_are_left_out(tmp_path: Path) -> None:
    for year, month in ((2023, "05"), (2024, "05"), (2024, "06")):
        folder = tmp_path / "t" / f"year={year}" / f"month={month}"
        folder.mkdir(parents=True)
        table = pyarrow.table({"x": [float(year)], "list": [[1]], "raw": [b"1"], "__index_level_0__": [0]})
        pyarrow.parquet.write_table(table, folder / "0.parquet")
    (tmp_path / "t" / "_SUCCESS").write_text("")
    index = index_csv(tmp_path / "t", tmp_path / "cache")
    assert index.described() == "3 files, Parquet, without list, raw, __index_level_0__"
    assert cells_of(index) == {"x": [2023, 2024, 2024], "year": [2023, 2024, 2024], "month": ["05", "05", "06"]}
    assert index_csv(f"{tmp_path}/t/year=2024/*/*.parquet", tmp_path / "cache").dialect.names == ("x", "month")


def test_a_key_that_comes_late_is_a_column(tmp_path: Path) -> None:
    rows = [{"x": i} for i in range(1100)] + [{"x": 0, "late": "a"}, {"x": 0, "late": {"b": [1]}}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = index_csv(tmp_path / "a.jsonl", tmp_path / "cache")
    assert cells_of(index)["late"][-3:] == ["", "a", '{"b": [1]}']
    assert index.column("late").missing == 1100


def test_types_of_parquet_are_read_as_a_csv_has_them(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 1, 31, 12, 30)
    table = pyarrow.table(
        {
            "id": [2**60, 2**60 + 1],
            "d": [decimal.Decimal("1.50"), None],
            "when": pyarrow.array([day, None], pyarrow.timestamp("ns")),
            "day": [day.date(), day.date()],
            "c": pyarrow.array(["a", None]).dictionary_encode(),
            "f": pyarrow.array([0.1, 2], pyarrow.float32()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    index = index_csv(tmp_path / "a.parquet", tmp_path / "cache", CsvOptions(types={"c": "category"}))
    # An identifier that float64 would round is text.
    assert cells_of(index) == {
        "id": [str(2**60), str(2**60 + 1)],
        "d": [1.5, ""],
        "when": ["2024-01-31 12:30:00", ""],
        "day": ["2024-01-31"] * 2,
        "c": ["a", ""],
        "f": [float(np.float32(0.1)), 2],
    }
    assert index.table()[LINE].to_pylist() == [1, 2]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in `tmp_path`."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_file_of_a_web_server_is_downloaded_once(tmp_path: Path, web: str) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,a\n")
    index = index_csv(f"{web}/a.csv", tmp_path / "cache")
    (tmp_path / "a.csv").unlink()
    assert index_csv(f"{web}/a.csv", tmp_path / "cache") == index
    assert index.rows == 1
    with pytest.raises(DataError, match=r"b\.csv cannot be downloaded: HTTP Error 404"):
        index_csv(f"{web}/b.csv", tmp_path / "cache")


def test_a_pattern_and_a_folder_of_an_object_store_are_read(tmp_path: Path, s3_port: int) -> None:
    files, root = open_location(uri_of(s3_port, "tables"))
    for number in range(2):
        with files.open_output_stream(f"{root}/part={number}/{number}.csv.gz", compression="gzip") as stream:
            stream.write(f"x,y\n{number},a\n".encode())
    by_pattern = index_csv(uri_of(s3_port, "tables/*/*.csv.gz"), tmp_path / "cache")
    assert cells_of(by_pattern) == {"x": [0, 1], "y": ["a", "a"], "part": [0, 1]}
    assert by_pattern.described() == "2 files, gzip, utf-8, delimiter ',', quote \", decimal '.'"
    assert index_csv(uri_of(s3_port, "tables"), tmp_path / "cache").content == by_pattern.content


def test_sentences_and_images_are_named_by_json_lines(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    pairs = [{"en": f"hello {i}", "de": f"hallo {i}"} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    sentences = sentences_of(PairData(train_csv=f"{tmp_path}/pairs.jsonl", cache=cache), "train", 0)
    assert sentences.texts(np.array([3, 19])) == (["hello 3", "hello 19"], ["hallo 3", "hallo 19"])
    images = [{"image": f"{i}.png", "kind": "ab"[i % 2]} for i in range(6)]
    for one in images[:5]:
        picture(tmp_path / one["image"], "red", seed=0)
    (tmp_path / "images.jsonl").write_text("".join(json.dumps(one) + "\n" for one in images))
    data = ImageCsvData(train_csv=f"{tmp_path}/images.jsonl", cache=cache, bad_rows="skip", max_bad_fraction=0.5)
    fit, opened = fit_images(data, 0)
    assert (fit.image_column, fit.classes) == ("image", ("a", "b"))
    assert image_rows(data, fit, "train", 0, opened).left_out.messages(2) == [
        f"{tmp_path}/images.jsonl:6: column 'image' holds '5.png'; there is no such file"
    ]


def test_keys_of_json_lines_may_come_late_and_be_named(tmp_path: Path) -> None:
    lines = [json.dumps({"a": row, **({"late": f"w{row % 3}"} if row >= 1500 else {})}) for row in range(1600)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    options = CsvOptions(types={"late": "category"}, label_columns=("late",))
    index = index_csv(tmp_path / "rows.jsonl", tmp_path / "cache", options)
    assert index.column("late").values == ("w0", "w1", "w2")
    with pytest.raises(DataError, match="has no column 'never'"):
        index_csv(tmp_path / "rows.jsonl", tmp_path / "cache", CsvOptions(types={"never": "category"}))


def test_fractions_of_a_second_stay_and_columns_without_text_are_left_out(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 1, 1, 12, 0, 0, 12_000)
    table = pyarrow.table(
        {
            "when": pyarrow.array([moment, moment.replace(microsecond=0)], pyarrow.timestamp("ms")),
            "id": pyarrow.array([b"0" * 16, b"1" * 16], pyarrow.uuid()),
            "n": [1, 2],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    index = index_csv(tmp_path / "rows.parquet", tmp_path / "cache")
    assert set(index.dialect.names) == {"when", "n"}
    (batch,) = index.batches(["when"])
    assert index.text_of("when", batch["when"]).to_pylist() == ["2024-01-01 12:00:00.012", "2024-01-01 12:00:00"]


def test_a_folder_that_holds_its_own_cache_is_read_twice_alike(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    first, second = (index_csv(tmp_path, tmp_path / "runs" / "prepared") for _ in range(2))
    assert first.content == second.content
