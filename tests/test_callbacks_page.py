"""The code of docs/callbacks.md does what the page says."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import blitz

PAGE = (Path(__file__).parents[1] / "docs" / "callbacks.md").read_text()
BLOCKS: list[str] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def test_the_recipe_draws_pushes_and_stops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "watched_page.py").write_text(BLOCKS[1])
    small: dict[str, Any] = {"max_train_rows": 320, "max_eval_rows": 100, "good_enough": 0.2, "optim.lr": 0.05}
    run = blitz.train("watched_page.py", run="one", report=False, num_workers=0, **small)
    monkeypatch.delitem(sys.modules, "watched_page")
    assert run.result is not None
    # Far from chance, and far from the last epoch.
    assert run.metrics["val/accuracy"] >= 0.2
    assert run.result["stopped_before"] == 50
    steps = range(10, run.result["steps"] + 1, 10)
    assert sorted(path.name for path in (folder / "pushed").iterdir()) == sorted(f"one-{n}.safetensors" for n in steps)
    newest = Image.open(folder / "runs" / "one" / "pictures" / f"first-layer-{steps[-1]}.png")
    assert newest.size[0] > 1


def test_the_function_is_called_as_shown(folder: Path) -> None:
    code = BLOCKS[2].replace("epochs=2", "epochs=2, max_train_rows=64, max_eval_rows=32, num_workers=0")
    exec(compile(code, "docs/callbacks.md", "exec"), {})
    (run,) = blitz.runs()
    assert run.directory.read_json("after_evaluation.json") == {"step": 4, "stopped_before": None}
