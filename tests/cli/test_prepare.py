import subprocess
import sys
from pathlib import Path

import pytest

from blitz.cli.prepare import main
from blitz.errors import DataError, UserError
from tests.pictures import picture


def test_the_report_shows_dialect_columns_classes_and_bad_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = tmp_path / "train.csv"
    csv.write_text("age;kind\n" + "1;cat\n;dog\n2;cat\n" * 10 + "abc;cat\n3;\n")
    flags = ["--label-column", "kind", "--out", str(tmp_path / "out")]
    with pytest.raises(DataError, match=r"2 of 32 rows are bad: .*train\.csv:32: column 'age' holds 'abc'"):
        main([str(csv), *flags])
    printed = " ".join(capsys.readouterr().out.split())
    for part in (
        "32 rows, 2 columns utf-8, delimiter ';', quote \", decimal '.'",
        "age number 10 1 to 3, mean 1.57143, std 0.58321",
        "kind category 1 2: cat, dog",
        "kind: 2 classes cat 21 67.7% dog 10 32.3%",
        "2 bad rows, listed in",
        f"{csv}:33: column 'kind' is empty; expected a label",
    ):
        assert part in printed
    listed = (tmp_path / "out" / "train.bad_rows.csv").read_text().splitlines()
    assert listed[1:] == [
        f'"{csv}",32,"age","abc","expected a number"',
        f'"{csv}",33,"kind","","expected a label"',
    ]
    main([str(csv), *flags, "--bad-rows", "skip", "--max-bad-fraction", "0.1", "--val-fraction", "0.3"])
    page = (tmp_path / "out" / "train.html").read_text()
    assert "validation rows" in page
    assert 'data-chart="target 1"' in page


def test_a_validation_csv_is_compared_with_the_training_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rows in {"train": "a.gif,cat\n", "val": "b.gif,dog\na.gif,cat\n"}.items():
        (tmp_path / f"{name}.csv").write_text("image,kind\n" + rows)
    picture(tmp_path / "a.gif", "red", seed=0)
    flags = ["--label-column", "kind", "--image-column", "image", "--val-csv", str(tmp_path / "val.csv")]
    with pytest.raises(DataError, match=r"1 of 2 rows is bad: .*val\.csv:2: column 'image' holds 'b\.gif'"):
        main([str(tmp_path / "train.csv"), *flags, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "no bad rows" in printed
    assert f"val.csv:2: column 'kind' holds 'dog'; expected a label that occurs in {tmp_path}/train.csv" in printed


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.prepare", tmp_path / "none.csv", "--out", tmp_path], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}/none.csv is not there; name a CSV file\n"


def test_several_paths_are_explained() -> None:
    for words in (["a.csv", "b.csv"], ["a.csv", "--val-csv", "b.csv", "c.csv"]):
        with pytest.raises(UserError, match=r"[bc]\.csv.*several files are one value: a pattern in quotes"):
            main(words)
