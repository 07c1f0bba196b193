"""Exported models: each is run by what its user will have, beside the model, and without this project."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blitz.export.formats
from blitz.cli.export import main
from blitz.cli.train import main as train_command
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.csv.tabular import CsvData
from blitz.errors import UserError
from blitz.export.checked_export import Exported, export
from blitz.export.formats import Format
from blitz.recipe import Batch, Recipe
from blitz.recipes.digits import Digits
from blitz.recipes.dynamic_net import DynamicNetOnNoise
from blitz.recipes.image_csv import ImageCsv, VisionModel
from blitz.recipes.parabola import Parabola
from blitz.recipes.table_csv import TableCsv
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from tests.pictures import coloured, dots
from tests.running import train

DEPLOY = Path(__file__).parents[1] / "docs" / "deploy"


def exported(recipe: Recipe, folder: Path, format_: Format, **settings: Any) -> Exported:
    """An artifact of a run of two steps."""
    run = train(recipe, folder)
    settings = {"quantize": False, "tolerance": 1e-4, **settings}
    return export(recipe.fitted(), run, run.checkpoint_step("last"), format_, **settings)


def table(folder: Path, *, target: str) -> TableCsv:
    """Numbers of which some are missing, and categories."""
    rows = "".join(f"{n / 7 if n % 5 else ''},{1e9 + n},{'xyz'[n % 3]},{n % 2},{n * 3}\n" for n in range(40))
    (folder / "t.csv").write_text("a,big,colour,kind,amount\n" + rows)
    ignored = ({"kind", "amount"} - {target}).pop()
    data = CsvData(str(folder / "t.csv"), target=target, ignore=(ignored,), val_fraction=0.3, cache=str(folder / "c"))
    return TableCsv(data=data, max_steps=2)


def images(folder: Path, csv: Path, **data: Any) -> ImageCsv:
    """A network with batch norm on small images."""
    of_data = ImageCsvData(str(csv), cache=str(folder / "c"), size=32, loader_workers=0, val_fraction=0.3, **data)
    return ImageCsv(data=of_data, model=VisionModel("mobilenet_v3_small"), global_batch_size=8, max_steps=2)


MADE: dict[str, Callable[[Path], Recipe]] = {
    "digits": lambda folder: Digits(max_steps=2),
    "dynamic_net": lambda folder: DynamicNetOnNoise(max_steps=2),
    "classes of a table": lambda folder: table(folder, target="kind"),
    "a number of a table": lambda folder: table(folder, target="amount"),
    "classes of images": lambda folder: images(folder, coloured(folder / "images", 12)),
    "points in images": lambda folder: images(
        folder, dots(folder / "images", 12), label_column=("*_x", "*_y"), task="points"
    ),
}


ROUNDING = 1e-4
"""In fp32, of sums of up to some 600 terms, each off by 6e-8 of them; what --tolerance is by default."""


@pytest.mark.parametrize(
    ("name", "format_"),
    [*((name, "torch_export") for name in MADE), ("digits", "torchscript"), ("classes of a table", "torchscript")],
)
def test_what_is_exported_gives_what_the_model_gives(name: str, format_: Format, tmp_path: Path) -> None:
    made = exported(MADE[name](tmp_path), tmp_path / "run", format_)
    assert made.rows >= 2
    assert made.difference is not None
    assert made.difference < ROUNDING
    assert next(iter(made.signature["outputs"].values()))["shape"][0] == "batch"


@pytest.mark.parametrize("name", ["digits", "a number of a table"])
def test_onnx_gives_what_the_model_gives(name: str, tmp_path: Path) -> None:
    made = exported(MADE[name](tmp_path), tmp_path / "run", "onnx")
    assert made.difference is not None
    assert made.difference < ROUNDING


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Digits that are classified with some certainty."""
    storage = tmp_path_factory.mktemp("runs")
    train_command(["digits", "--epochs", "3", "--run", "one", "--storage", str(storage), "--scale.num-workers", "0"])
    return RunDirectory.of(str(storage), "one")


@pytest.mark.parametrize(
    ("format_", "suffix"), [("torch_export", "pt2"), ("onnx", "onnx"), ("torchscript", "torchscript.pt")]
)
def test_an_artifact_runs_where_there_is_no_blitz(
    format_: str, suffix: str, digits_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([digits_run.uri, "--format", format_])
    said = capsys.readouterr().out
    artifact = Path(digits_run.uri, "export", f"digits-135.{suffix}")
    assert f"step 135: {artifact}\ninput   inputs         uint8 (batch, 1, 8, 8)" in said
    assert ("torch deprecates TorchScript" in said) == (format_ == "torchscript")
    script = tmp_path / "run.py"
    # Before anything else: whatever would import this project is stopped.
    guard = "import sys\nsys.modules['blitz'] = None\nsys.modules['jobs'] = None\n"
    script.write_text(guard + (DEPLOY / f"run_{format_}.py").read_text())
    moved = shutil.copy(artifact, tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", str(script), moved],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shapes, digit = done.stdout.split("\n")[:2]
    assert json.loads(shapes) == {"probabilities": [5, 10]}
    assert digit in "0123456789"


def test_a_quantised_model_is_smaller_and_judged_on_real_rows(
    digits_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    main([digits_run.uri, "--format", "onnx", "--quantize"])
    said = capsys.readouterr().out
    assert "real rows" in said
    ((before, after),) = re.findall(r"([\d,]+) bytes before quantisation, ([\d,]+) after", said)
    assert int(after.replace(",", "")) < int(before.replace(",", ""))
    accuracies = [float(each) for each in re.findall(r"(0\.\d+) (?:before|after)", said)]
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.05)


def test_a_state_dict_is_loaded_by_a_plain_model(digits_run: RunDirectory, tmp_path: Path) -> None:
    main([digits_run.uri, "--format", "state_dict", "--output", str(tmp_path / "weights.pt")])
    model = Digits().build_model()
    model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    weights = Checkpoint.load(digits_run, 135).weights
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_holds_tensors_and_never_code(digits_run: RunDirectory, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "was run",)

    copied = RunDirectory.of(str(shutil.copytree(digits_run.uri, tmp_path / "run")))
    files, state = copied.read_checkpoint(135)
    # With the digests that belong to it.
    seals = copied.write_part(
        135, 0, 1, {"weights": pickle.dumps(Touch()), "optimizer": dict(files)["optimizer.safetensors"]}
    )
    copied.seal_checkpoint(135, seals, state)
    with pytest.raises(UserError, match=r"checkpoints/135/weights.safetensors is damaged"):
        main([copied.uri, "--checkpoint", "last", "--output", str(tmp_path / "a.pt2")])
    assert not (tmp_path / "was run").exists()


class Wavering(Parabola):
    """Gives something else each time."""

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"outputs": self.forward(model, batch) + torch.rand(())}


class Undecided(Parabola):
    """Looks at its values to decide."""

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"outputs": self.forward(model, batch) * (1 if float(batch["inputs"].sum()) > 0 else 2)}


def test_what_differs_from_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"differs from the model by .*; nothing was written"):
        exported(Wavering(max_steps=1), tmp_path, "torch_export")


def test_what_cannot_be_traced_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be exported as torch_export \(.*\); try another --format") as refused:
        exported(Undecided(max_steps=1), tmp_path, "torch_export")
    assert "\n" not in str(refused.value)


def test_mistakes_are_reported_before_anything_is_made(
    digits_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="--quantize is for --format onnx"):
        main([digits_run.uri, "--quantize", "--overwrite"])
    with pytest.raises(UserError, match=r"is a folder; name a file"):
        main([digits_run.uri, "--output", str(tmp_path)])
    with pytest.raises(UserError, match="has no whole checkpoint of step 7"):
        main([digits_run.uri, "--checkpoint", "7", "--output", str(tmp_path / "a")])
    (tmp_path / "there").touch()
    with pytest.raises(UserError, match="exists already"):
        main([digits_run.uri, "--output", str(tmp_path / "there")])

    def without_onnx(name: str) -> ModuleSpec | None:
        return None if name == "onnxscript" else ModuleSpec(name, None)

    monkeypatch.setattr(blitz.extras, "find_spec", without_onnx)
    with pytest.raises(
        UserError, match=r"--format onnx needs onnxscript, which is not installed: pip install 'blitz\[export\]'"
    ):
        main([digits_run.uri, "--format", "onnx", "--output", str(tmp_path / "a")])
