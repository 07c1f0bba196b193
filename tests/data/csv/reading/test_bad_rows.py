import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blitz.data.csv.reading.image_files import check_images
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.table import CsvTable, unknown_labels
from blitz.errors import DataError


def indexed(path: Path, text: str, **options: object) -> CsvIndex:
    path.write_text(text)
    return index_csv(path, path.parent / "cache", CsvOptions(**options))  # type: ignore[arg-type]


@pytest.fixture
def ages(tmp_path: Path) -> CsvIndex:
    """101 rows below the header: lines 12, 22, … hold no number, and the last has three fields."""
    rows = [f"{'abc' if i % 10 == 0 and i else i},{'xy'[i % 2]}\n" for i in range(100)]
    return indexed(tmp_path / "train.csv", "age,label\n" + "".join(rows) + "1,x,y\n", types={"age": "number"})


def test_fail_names_the_first_three_faults_and_counts_all(ages: CsvIndex) -> None:
    bad = ages.bad_rows() + ages.bad_rows()
    with pytest.raises(DataError) as caught:
        bad.enforce_policy("fail", total_rows=ages.total_rows, max_bad_fraction=1)
    message = str(caught.value)
    assert message.startswith(f"{ages.csv}: 10 of 101 rows are bad: ")
    assert message.count(f"{ages.csv}:12: column 'age' holds 'abc'; expected a number") == 2
    assert message.count("; expected a number") == 3
    assert "; and 17 more faults; " in message
    assert "\n" not in message


def test_a_ragged_row_is_reported_with_its_fields(ages: CsvIndex) -> None:
    assert ages.bad_rows().messages(99)[-1] == f"{ages.csv}:102: the row has 3 fields; the header has 2"


def test_skip_leaves_bad_rows_out(ages: CsvIndex) -> None:
    without = ages.bad_rows().enforce_policy("skip", total_rows=ages.total_rows, max_bad_fraction=0.1)
    table = CsvTable(ages, ["age", "label"], without=without)
    kept = [i for i in range(100) if i % 10 or not i]
    assert len(table) == len(kept) == 91
    assert table.__getitems__(np.arange(91))["age"].tolist() == kept
    rows = np.array([90, 0, 45, 9])
    assert table.__getitems__(rows)["label"].tolist() == [kept[row] % 2 for row in rows]
    assert table.lines(rows).tolist() == [kept[row] + 2 for row in rows]


def test_skip_has_a_limit(ages: CsvIndex) -> None:
    with pytest.raises(DataError, match=r"10 of 101 rows are bad, more than --max-bad-fraction 0\.05 allows: .*:12: "):
        ages.bad_rows().enforce_policy("skip", total_rows=ages.total_rows, max_bad_fraction=0.05)


def test_bad_rows_are_written_as_csv(ages: CsvIndex, tmp_path: Path) -> None:
    header, first, *_, last = ages.bad_rows().list_in(tmp_path).read_text().splitlines()
    assert header == '"csv","line","column","value","reason"'
    assert first == f'"{ages.csv}",12,"age","abc","expected a number"'
    assert last == f'"{ages.csv}",102,,"1,x,y","the row has 3 fields; the header has 2"'
    assert len(ages.bad_rows().records()) == 10


def test_good_rows_are_no_error(tmp_path: Path) -> None:
    index = indexed(tmp_path / "train.csv", "a,b\n1,2\n")
    assert index.bad_rows().enforce_policy("fail", total_rows=1, max_bad_fraction=0).tolist() == []
    assert index.bad_rows().records() == []


def test_labels_of_validation_that_training_lacks(tmp_path: Path) -> None:
    train = indexed(tmp_path / "train.csv", "x,label\n1,cat\n2,dog\n", label_columns=("label",))
    val = indexed(tmp_path / "val.csv", 'x,label\n1,dog\n"2",zebra\n3,cat\n\n4,zebra\n', label_columns=("label",))
    bad = unknown_labels(val, "label", ("cat", "dog"), "train.csv")
    where = f"{tmp_path / 'val.csv'}"
    assert bad.messages(9) == [
        f"{where}:{line}: column 'label' holds 'zebra'; expected a label that occurs in train.csv" for line in (3, 6)
    ]
    table = CsvTable(val, ["label"], categories={"label": train.column("label").values or ()}, without=bad.rows())
    assert table.__getitems__(np.arange(2))["label"].tolist() == [1, 0]
    assert len(unknown_labels(train, "label", ("cat", "dog"), "train.csv")) == 0


def test_an_image_with_two_labels_is_bad_on_every_line(tmp_path: Path) -> None:
    text = "image,label\na.jpg,cat\nb.jpg,dog\na.jpg,dog\nb.jpg,dog\n,cat\n,dog\nc.jpg,\nc.jpg,cat\na.jpg,cat\n"
    index = indexed(tmp_path / "train.csv", text, label_columns=("label",), image_column="image")
    faults = [(fault["line"], fault["column"], fault["reason"]) for fault in index.bad_rows().faults.to_pylist()]
    assert faults == [
        (2, "image", "line 4 gives the same image another label"),
        (4, "image", "line 2 gives the same image another label"),
        (6, "image", "expected the path of an image"),
        (7, "image", "expected the path of an image"),
        (8, "label", "expected a label"),
        (10, "image", "line 4 gives the same image another label"),
    ]


def test_conflicts_are_found_among_many_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = rng.integers(0, 40_000, 60_000)
    labels = (paths * 7) % 3
    labels[rng.choice(60_000, 20, replace=False)] += 1
    of_path: dict[int, set[int]] = {}
    for path, label in zip(paths.tolist(), labels.tolist(), strict=True):
        of_path.setdefault(path, set()).add(label)
    expected = [line for line, path in enumerate(paths.tolist(), start=2) if len(of_path[path]) > 1]
    text = "image,label\n" + "".join(
        f"photos/of/{path}.jpg,{label}\n" for path, label in zip(paths, labels, strict=True)
    )
    index = indexed(tmp_path / "train.csv", text, label_columns=("label",), image_column="image")
    assert index.bad_rows().faults["line"].to_pylist() == expected


def test_a_table_gives_rows_in_the_order_asked_for_and_pickles_as_a_path(tmp_path: Path) -> None:
    rows = "".join(f"{'' if i % 7 == 3 else i},{'' if i % 5 == 2 else 'cab'[i % 3]},t{i}\n" for i in range(100_000))
    index = indexed(tmp_path / "train.csv", "n,c,t\n" + rows)
    table = CsvTable(index, ["n", "c", "t"])
    asked = np.array([99_999, 3, 2, 0, 50_000])
    assert len(pickle.dumps(table)) < 4000
    for each in (table, pickle.loads(pickle.dumps(table))):
        columns = each.__getitems__(asked)
        np.testing.assert_array_equal(columns["n"], [99_999, np.nan, 2, 0, 50_000])
        assert columns["c"].tolist() == [2, 2, -1, 2, 1]
        assert columns["t"].tolist() == ["t99999", "t3", "t2", "t0", "t50000"]
        assert each[0] == {"n": 0, "c": 2, "t": "t0"}


def encoded(format: str) -> bytes:
    """An image of noise, of some ten thousand bytes."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100, 3), np.uint8)).save(stream, format)
    return stream.getvalue()


JPEG, PNG, GIF, WEBP = map(encoded, ("JPEG", "PNG", "GIF", "WEBP"))


def test_images_that_are_missing_broken_or_cut_off(tmp_path: Path) -> None:
    files = {
        "whole.jpg": JPEG,
        "trailer.jpg": JPEG + b"written by a camera",
        "whole.png": PNG,
        "whole.gif": GIF,
        "whole.webp": WEBP,
        "cut.jpg": JPEG[:-200],
        "cut.png": PNG[:-200],
        "cut.gif": GIF[:-200],
        "cut.webp": WEBP[:-200],
        "empty.jpg": b"",
        "page.jpg": b"<html>not found</html>",
    }
    (tmp_path / "images").mkdir()
    for name, data in files.items():
        (tmp_path / "images" / name).write_bytes(data)
    (tmp_path / "folder.jpg").mkdir()
    whole = str(tmp_path / "images" / "whole.jpg")
    cells = [f"images/{name}" for name in files] + [
        "none.jpg",
        "folder.jpg",
        whole,
        f"file://{whole}",
        "nope://a/b.jpg",
    ]
    index = indexed(tmp_path / "train.csv", "image\n" + "\n".join(cells) + "\n", image_column="image")
    found = {
        (fault["line"], fault["value"], fault["reason"].split(":")[0])
        for fault in check_images(index, "image").faults.to_pylist()
    }
    reasons = {
        "images/cut.jpg": "the image is cut off or broken",
        "images/cut.png": "the image is cut off or broken",
        "images/cut.gif": "the image is cut off or broken",
        "images/cut.webp": "the image is cut off or broken",
        "images/empty.jpg": "the file is empty",
        "images/page.jpg": "expected an image",
        "none.jpg": "there is no such file",
        "folder.jpg": "expected a file; it is a folder",
        "nope://a/b.jpg": "the file cannot be read",
    }
    assert found == {(cells.index(cell) + 2, cell, reason) for cell, reason in reasons.items()}
    exists = check_images(index, "image", check="exists")
    assert {fault["value"] for fault in exists.faults.to_pylist()} == {
        "images/empty.jpg",
        "none.jpg",
        "folder.jpg",
        "nope://a/b.jpg",
    }


def test_image_paths_start_from_the_root(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(JPEG)
    index = indexed(tmp_path / "train.csv", "image\na.jpg\n", image_column="image")
    assert len(check_images(index, "image")) == 1
    assert len(check_images(index, "image", tmp_path / "photos")) == 0
    assert len(check_images(index, "image", f"file://{tmp_path}/photos")) == 0


def test_faces(tmp_path: Path, test_data: Path) -> None:
    csv = test_data / "faces" / "face_landmarks.csv"
    landmarks = tuple(f"part_{part}_{axis}" for part in range(68) for axis in "xy")
    index = index_csv(csv, tmp_path, CsvOptions(label_columns=landmarks, image_column="image_name"))
    assert all(column.type == "number" for column in index.columns[1:])
    assert index.rows == index.total_rows == len(CsvTable(index, landmarks))
    assert len(index.bad_rows() + check_images(index, "image_name")) == 0
