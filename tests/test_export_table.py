"""Exported models of tables take the cells of a CSV, where there is no blitz, and give what `blitz predict` gives."""

import csv
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blitz
from blitz.api.train_run import TrainSettings, train_run
from blitz.export.formats import Format
from tests.test_export import DEPLOY
from tests.test_table_csv import recipe, write

_COLOURS = ("red", "green", "Blue ", "N/A!", "007")


def cells(random: np.random.Generator, row: int, *, many: bool) -> list[str]:
    """A row whose cells are written in many ways, some of them missing."""
    amount, share, day = 3000 * random.random(), 100 * random.random(), 1 + int(28 * random.random())
    written = f"${amount:,.2f}" if row % 3 else f"(${amount:,.2f})"
    hour = f" {row % 12 + 1}:{row % 60:02} {'am' if row % 2 else 'pm'}" if row % 5 else ""
    zone = (" +05:30", " utc", "")[row % 3] if hour else ""
    return [
        written if row % 7 else "n/a",
        f"{share:.1f}".replace(".", ",") + " %" if row % 11 else "",
        f"{int(amount) * 10:,}".replace(",", " "),
        _COLOURS[int(random.integers(5))] if row % 13 else "",
        f"id{row % 1200}" if many else "xyz"[row % 3],
        f"{day}.{1 + row % 12}.{2019 + row % 5}{hour}{zone}" if row % 17 else "soon",
        "Very good — ñandú, a b" if row % 2 else f"bad {row}",
    ]


def rows_of(folder: Path, *, many: bool) -> tuple[Path, Path]:
    """A CSV to train on, and one to predict for, with values that the first lacks."""
    random, header = np.random.default_rng(0), "amount,share,sum,colour,kind,when,review"
    rows = [cells(random, row, many=many) for row in range(3600 if many else 90)]
    quoted = [",".join(f'"{cell}"' for cell in row) for row in rows]
    table = write(folder / "table.csv", f"{header},y", *(f"{row},{n % 3}" for n, row in enumerate(quoted)))
    new = [*rows[:40], ["", "", "", "unseen", "unseen", "30.2.2024", ""], ["", "", "", "nan", "nan", "", "?"]]
    return table, write(folder / "new.csv", header, *(",".join(f'"{cell}"' for cell in row) for row in new))


def answers(artifact: str, rows: Path, folder: Path) -> list[dict[str, Any]]:
    """What the program of the guide prints, where blitz cannot be imported."""
    script = folder / "run.py"
    guard = "import sys\nsys.modules['blitz'] = sys.modules['pyarrow'] = None\n"
    script.write_text(guard + (DEPLOY / "run_table.py").read_text())
    command = [sys.executable, "-I", "-W", "ignore", str(script), artifact, str(rows)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_cells_are_read_without_blitz_as_with_it(tmp_path: Path) -> None:
    table, new = rows_of(tmp_path, many=True)
    given: dict[str, Any] = {"text": ("review",), "types": {"kind": "category"}}
    fitted = recipe(tmp_path, table, val_fraction=0.1, task="classification", **given).fitted()
    expected = fitted.inputs(str(new)).__getitems__(np.arange(42))
    assert (expected["categories"][:, 1] > 1000).any(), "some codes are hashes"
    program = runpy.run_path(str(DEPLOY / "run_table.py"))
    inputs = {name: {"dtype": str(column.dtype)} for name, column in expected.items()}
    signature = json.loads(json.dumps({**fitted.signature(), "inputs": inputs}))
    with new.open(encoding="utf-8", newline="") as file:
        found = program["inputs_of"](signature, list(csv.DictReader(file)))
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        assert found[name].dtype == column.dtype
        assert np.array_equal(found[name], column, equal_nan=name == "numbers"), name
    with pytest.raises(ValueError, match="column 'amount' holds 'many'; expected a number"):
        program["number"](signature["cells"], "amount", "many")


@pytest.mark.parametrize(("format_", "task"), [("torch_export", "regression"), ("onnx", "classification")])
def test_an_artifact_on_raw_rows_gives_what_predict_gives(format_: Format, task: Any, tmp_path: Path) -> None:
    table, new = rows_of(tmp_path, many=False)
    made = recipe(tmp_path, table, task=task, val_fraction=0.2, max_steps=3)
    train_run(TrainSettings(made, run="run", storage=str(tmp_path), report=False))
    run = blitz.open(tmp_path / "run")
    found = answers(run.export(format=format_), new, tmp_path)
    expected = run.predict(new).to_pylist()
    assert len(found) == len(expected) == 42
    for answer, row in zip(found, expected, strict=True):
        if task == "regression":
            assert answer["prediction"] == pytest.approx(row["prediction"], rel=1e-5, abs=1e-5)
            continue
        for name, probability in answer["probabilities"].items():
            assert probability == pytest.approx(row[f"probability_{name}"], abs=1e-5)
