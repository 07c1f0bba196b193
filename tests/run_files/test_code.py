"""A run keeps the code of its recipe, and is not resumed with other code unless that is asked for."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import tune as ray_tune

import blitz
from blitz.api.run import open_run
from blitz.cli import report
from blitz.errors import UserError
from blitz.launch.scale import Scale
from blitz.project import digests
from blitz.run_files.code import changed_code, write_sources
from blitz.run_files.directory import RunDirectory

RECIPE = """
from dataclasses import dataclass
import numpy as np
from torch import nn
import blitz
from blitz.api.run import open_run
from seed_sizes import WIDTH

@dataclass(frozen=True)
class Seeds(blitz.Recipe):
    epochs: int = 1
    global_batch_size: int = 8

    def dataset(self, split):
        x = np.ones((16, WIDTH), np.float32)
        return blitz.ArrayDataset(inputs=x, targets=x[:, :1])

    def build_model(self):
        return nn.Linear(WIDTH, 1)

    def loss(self, outputs, batch):
        return (outputs - batch["targets"]).square().mean(1)
"""
OLD = "import a\n\ndef loss(x):\n    return x\n\nclass Net:\n    def forward(self, x):\n        return x\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project to be in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "seeds.py").write_text(RECIPE)
    (tmp_path / "seed_sizes.py").write_text("WIDTH = 2\n")
    yield tmp_path
    for name in ("seeds", "seed_sizes"):
        sys.modules.pop(name, None)


def train(**settings: Any) -> blitz.Run:
    return blitz.train("seeds.py", run="one", report=False, num_workers=0, **settings)


def test_a_run_keeps_its_code_and_resumes_with_other_code_only_if_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train().directory
    sources = {"seed_sizes.py": "WIDTH = 2\n", "seeds.py": RECIPE}
    assert {path: run.read(f"code/{path}").decode() for path in run.names("code")} == sources
    assert (run.read_json("recipe.json") or {})["source_sha256"] == digests(sources)

    (folder / "seed_sizes.py").write_text("# Larger.\nWIDTH = 2\n")
    change = "seed_sizes.py:1 (was nothing, is `# Larger.`)"
    with pytest.raises(UserError) as refused:
        train(epochs=2)
    assert f"its code has changed since it was made: {change}; give --resume-changed-code" in str(refused.value)
    assert "\n" not in str(refused.value)
    capsys.readouterr()
    # Its weights fit or do not, whatever its code says.
    assert open_run("runs/one").evaluate("val")["loss"] >= 0
    assert capsys.readouterr().err.count(change) == 1

    train(epochs=2, resume_changed_code=True)
    assert f"from here on: {change}" in capsys.readouterr().out
    assert [event["step"] for event in run.events() if event["what"] == "code changed"] == [2]
    assert run.read("code/seed_sizes.py") == b"# Larger.\nWIDTH = 2\n"

    # As if the module had been imported anew.
    monkeypatch.setattr(sys.modules["seeds"], "WIDTH", 3)
    with pytest.raises(
        UserError, match=r"checkpoints/4: its weights do not fit .*\(size mismatch for weight: .*\); give"
    ):
        open_run("runs/one").model()
    monkeypatch.setattr(sys.modules["seeds"], "WIDTH", 2)

    # A run of before it was kept, and one whose recipe.json is damaged there.
    for entry in (None, 3, {"seeds.py": 3}, {}):
        stored = json.loads(run.read("recipe.json")) | {"source_sha256": entry}
        run.write_json("recipe.json", {name: value for name, value in stored.items() if value is not None})
        if entry == {"seeds.py": 3}:
            with pytest.raises(UserError, match=r"seeds.py .*; seed_sizes.py is new"):
                train(epochs=3)
        else:
            assert train(epochs=2).finished


def test_a_report_notes_that_the_code_has_changed_since(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train()
    space = blitz.Space("seeds.py", {"optim.lr": ray_tune.grid_search([0.1, 0.2])})
    blitz.tune(space, run="sweep", search="grid", num_trials=2, report=False, scale=Scale(num_workers=0))
    report.main(["runs/one"])
    assert capsys.readouterr().err == ""
    (folder / "seed_sizes.py").write_text("# Larger.\nWIDTH = 2\n")
    for name in ("one", "sweep", "sweep/best"):
        report.main([f"runs/{name}"])
        printed = capsys.readouterr()
        assert printed.out.endswith("/report.html\n")
        assert printed.err == (
            f"{folder}/runs/{name}: its code has changed since it was made: "
            "seed_sizes.py:1 (was nothing, is `# Larger.`)\n"
        )
    # What only this project says of itself is no error for whoever has the run alone.
    (folder / "seeds.py").unlink()
    report.main(["runs/one"])
    assert capsys.readouterr().err == ""


def test_a_run_is_used_and_resumed_from_another_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert open_run(run.uri).evaluate("val")["loss"] >= 0
    again = blitz.train(folder / "seeds.py", run="one", storage=folder / "runs", epochs=2, report=False, num_workers=0)
    assert [event["what"] for event in again.directory.events()] == ["started", "finished", "resumed", "finished"]
    alone = RunDirectory.of(shutil.move(run.uri, str(elsewhere / "alone")))
    alone.write_json("recipe.json", {**json.loads(alone.read("recipe.json")), "recipe": "seeds.py:Seeds"})
    with pytest.raises(UserError, match=r"no file seeds\.py.*; give this command in the folder where"):
        open_run(alone.uri)


def test_what_has_changed_is_one_line(tmp_path: Path) -> None:
    run = RunDirectory.of(str(tmp_path))
    write_sources(run, {"a/net.py": OLD})
    stored = {"source_sha256": digests({"a/net.py": OLD})}

    def said(**files: str) -> str:
        return changed_code(run, stored, {f"a/{name}.py": text for name, text in files.items()})

    assert said(net=OLD) == ""
    assert said(net=OLD, loss="x") == "a/loss.py is new"
    assert said(loss="x") == "a/net.py is no longer a part of it; a/loss.py is new"
    assert said(net=OLD.replace("return x", "return 2 * x")) == (
        "a/net.py:4 in loss, forward (was `return x`, is `return 2 * x`)"
    )
    assert said(net=OLD.replace("import a\n", "")) == "a/net.py:1 (was `import a`, is nothing)"
    assert said(net="def (") == "a/net.py:1 in loss, Net, forward (was `import a`, is `def (`)"
    assert said(net=OLD.replace("\n", "\r\n")) == "a/net.py (line ends only)"
    run.delete_folder("code")
    assert said(net="x") == "a/net.py (the run has no copy of it to compare with)"
