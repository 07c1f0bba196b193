"""Paths to write to that cannot be: one line that names the flag, before anything is computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blitz.cli import export, predict, prepare, report, train
from blitz.errors import UserError

TABLE = "table_csv --data.train-csv a.csv --data.target y --data.val-fraction 0.25 --epochs 1 --run r"
DIGITS = "digits --max-train-rows 64 --max-eval-rows 8 --epochs 1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a CSV lies, and a file that is no folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(20)))
    (tmp_path / "file").write_text("of someone's\n")
    return tmp_path


def refusal(main: Callable[[list[str]], Any], words: str) -> str:
    with pytest.raises(UserError) as refused:
        main(words.split())
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("blocked", ["file", "file/below", "/proc/none"])
def test_a_path_that_cannot_be_a_folder_is_refused_by_its_flag(blocked: str, folder: Path) -> None:
    assert refusal(train.main, f"{TABLE} --data.cache {blocked}").startswith("--data.cache: ")
    assert refusal(train.main, f"{DIGITS} --storage {blocked}").startswith("--storage: ")
    assert refusal(prepare.main, f"a.csv --out {blocked}").startswith("--out: ")
    assert (folder / "file").read_text() == "of someone's\n"


def test_a_file_instead_of_the_folder_runs_is_one(folder: Path) -> None:
    (folder / "runs").touch()
    assert refusal(train.main, TABLE).startswith("--data.cache: ")
    assert refusal(train.main, DIGITS).startswith("--storage: ")
    assert refusal(prepare.main, "a.csv").startswith("--out: ")


def test_outputs_of_a_run_that_cannot_be_written_are_refused(folder: Path) -> None:
    train.main(f"{TABLE} --no-report".split())
    for blocked in ("file/below", "/proc/none/below"):
        assert refusal(export.main, f"runs/r --output {blocked}").startswith("--output: ")
        assert "--out" in refusal(report.main, f"runs/r --out {blocked}")
        assert refusal(predict.main, f"runs/r a.csv {blocked}").startswith(f"{blocked} cannot be written")
    assert (folder / "file").read_text() == "of someone's\n"
