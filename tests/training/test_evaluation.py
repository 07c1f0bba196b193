"""Whatever is not a training step is done in evaluation mode and without gradients."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from blitz.data.plan import Plan
from blitz.launch.launch import launch
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.recipes.blobs import Blobs
from blitz.run_files.directory import RunDirectory
from blitz.training.best_plot import draw
from blitz.training.evaluation import EvaluateJob
from blitz.training.prediction import PredictJob
from tests.running import train

seen: list[tuple[bool, bool]] = []
"""Of each pass: whether the model was in training mode, and whether gradients were kept."""


class Watched(nn.Linear):
    def forward(self, numbers: Tensor) -> Tensor:
        seen.append((self.training, torch.is_grad_enabled()))
        return super().forward(numbers)


@dataclass(frozen=True)
class WatchedBlobs(Blobs):
    """Two steps, and an evaluation after each."""

    max_steps: int | None = 2
    evaluate_every_steps: int | None = 1

    def build_model(self) -> nn.Module:
        return nn.Sequential(Watched(2, 2), nn.Dropout(0.5))


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[RunDirectory]:
    seen.clear()
    yield train(WatchedBlobs(), tmp_path / "run")
    seen.clear()


def test_only_training_steps_train(trained: RunDirectory, tmp_path: Path) -> None:
    training, evaluation = (True, True), (False, False)
    assert seen == [training, evaluation, training, evaluation]
    seen.clear()

    recipe, plan = WatchedBlobs(), Plan.of_evaluation(rows=1000, batch_size=1000)
    rows, here = {"val": recipe.dataset("val")}, Placement(Scale(num_workers=0, use_gpu="no"))
    launch(EvaluateJob(recipe, plan, trained, "val", 2), rows, here)  # type: ignore[arg-type]
    launch(PredictJob(recipe, plan, trained, 2, RunDirectory.of(str(tmp_path / "parts"))), rows, here)  # type: ignore[arg-type]
    assert draw(recipe, trained, step=2, split="val") == "pictures/val-2.png"
    assert seen == [evaluation] * 3


def test_an_evaluation_in_between_leaves_the_mode_of_training(tmp_path: Path) -> None:
    seen.clear()
    train(replace(WatchedBlobs(), max_steps=3, evaluate_every_steps=2), tmp_path)
    assert [training for training, _ in seen] == [True, True, False, True, False]
