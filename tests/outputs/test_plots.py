"""Pictures of what was learned, by the recipes that draw one."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blitz.cli.train import main as train_command
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.training.best_plot import draw


@pytest.mark.parametrize("name", ["parabola", "blobs"])
def test_a_picture_of_the_best_checkpoint_is_in_the_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_command([name, "--epochs", "2", "--storage", str(tmp_path), "--run", "one", "--scale.num-workers", "0"])
    (picture,) = (tmp_path / "one" / "pictures").iterdir()
    assert f"picture: pictures/{picture.name}" in capsys.readouterr().out
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape == (576, 768, 3)
    # More than a frame: points, and a line or regions.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_a_recipe_without_a_picture_loads_neither_its_checkpoint_nor_what_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An import of it fails.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["digits", "--max-steps", "1", "--storage", str(tmp_path), "--run", "one", "--scale.num-workers", "0"]
    train_command(words)
    assert not (tmp_path / "one" / "pictures").exists()
    assert draw(Digits(), RunDirectory.of(str(tmp_path / "nowhere")), step=1, split="val") is None
