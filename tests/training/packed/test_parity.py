"""Each lane of a pack is the solo run of its recipe: in float64 over whole runs, and in fp32 over a few steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.models.lenet5 import LeNet
from blitz.optim import Optim
from blitz.outputs.metrics import Classification
from blitz.recipe import Batch, Draws, Recipe, StepDraws, may_change
from blitz.recipes.digits import Digits
from blitz.recipes.parabola import Parabola
from blitz.training.checkpoint import Checkpoint
from blitz.training.packed import stack
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, train
from tests.training.packed.packs import Heard, train_packed

KINDS = (
    Optim(name="sgd", lr=0.05),
    Optim(name="momentum", lr=0.01, momentum=0.8),
    Optim(name="rmsprop", lr=0.002, alpha=0.9),
    Optim(name="adam", lr=0.003, betas=(0.9, 0.99)),
    Optim(name="adamw", lr=0.003, weight_decay=0.05),
)
SETTINGS = (
    *KINDS,
    Optim(name="adam", lr=0.01, weight_decay=0.01, grad_clip_norm=0.05, schedule="cosine", warmup_steps=10),
    Optim(name="rmsprop", lr=0.001, momentum=0.5, weight_decay=0.01, warmup_steps=5),
    Optim(name="momentum", lr=0.02, weight_decay=0.02, schedule="cosine", grad_clip_norm=0.5),
    Optim(name="sgd", lr=0.1, weight_decay=0.01),
)


@dataclass(frozen=True)
class Images(Recipe):
    """LeNet on images whose class shows in their brightness, some of them changed at random."""

    epochs: int = may_change(3)
    global_batch_size: int = 4
    log_every_steps: int = may_change(1)

    def dataset(self, split: Split) -> ArrayDataset:
        random = np.random.default_rng(split == "val")
        targets = random.integers(10, size=50)
        inputs = random.normal(targets[:, None, None, None] / 5 - 1, size=(50, 3, 32, 32))
        return ArrayDataset(inputs=inputs.astype(np.float32), targets=targets)

    def build_model(self) -> nn.Module:
        return LeNet()

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        return {**batch, "inputs": batch["inputs"] * draws(1)[:, :, None, None]}

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch["targets"], reduction="none")

    def metrics(self) -> Classification:
        return Classification(classes=tuple("0123456789"))


@dataclass(frozen=True)
class Restless(Images):
    """With dropout, choices, noise in what is preprocessed, tied and frozen weights, and a frozen batch norm."""

    def build_model(self) -> nn.Module:
        norm = nn.BatchNorm2d(3)
        norm.running_mean = torch.randn(3)
        norm.eval().weight.requires_grad_(False)
        first, tied = nn.Linear(10, 10), nn.Linear(10, 10)
        tied.weight = first.weight
        return nn.Sequential(norm, nn.Flatten(), nn.Linear(3072, 10), nn.Dropout(0.3), nn.Tanh(), first, tied)

    def preprocess(self, batch: Batch) -> Batch:
        return {**batch, "inputs": batch["inputs"] + torch.randn_like(batch["inputs"])}

    def choices(self, draws: StepDraws) -> dict[str, Any]:
        return {"scale": 0.5 + draws(1).item()}

    def forward(self, model: nn.Module, batch: Batch, *, scale: float = 1.0) -> Any:
        return model(batch["inputs"]) * scale


def without_times(line: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if not name.endswith(("per_second", "_seconds"))}


def assert_equal_to_solo_runs(recipes: Sequence[Recipe], heard: Heard, folder: Path) -> None:
    for lane, recipe in enumerate(recipes):
        run = train(recipe, folder / str(lane))
        solo = run.metrics()
        packed = heard.lines[lane]
        assert [without_times(line).keys() for line in packed] == [without_times(line).keys() for line in solo]
        for line, written in zip(packed, solo, strict=True):
            assert without_times(line) == pytest.approx(without_times(written), rel=TOLERANCE, abs=TOLERANCE)

        end = heard.ends[lane]
        assert end.state == "finished"
        assert end.last is not None
        assert end.best is not None
        steps = (run.checkpoint_step("last"), run.checkpoint_step("best"))
        for step, checkpoint in zip(steps, (end.last, end.best), strict=True):
            stored = Checkpoint.load(run, step)
            assert checkpoint.step == step
            assert checkpoint.state.keys() == stored.state.keys() - {"files", "sha256"}
            assert checkpoint.state["rows_digest"] == stored.state["rows_digest"]
            for own, theirs in ((checkpoint.weights, stored.weights), (checkpoint.optimizer, stored.optimizer)):
                assert own.keys() == theirs.keys()
                for name, value in own.items():
                    assert value.dtype == theirs[name].dtype
                    torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-6)


def lanes_of(recipe: Recipe) -> list[Recipe]:
    return [replace(recipe, optim=optim) for optim in SETTINGS]


every_model = pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(Parabola(epochs=3, log_every_steps=1), id="parabola"),
        pytest.param(Digits(epochs=1, log_every_steps=1), id="digits"),
        pytest.param(Images(), id="LeNet"),
    ],
)


@every_model
def test_each_lane_equals_its_solo_run_whatever_lies_beside_it(recipe: Recipe, tmp_path: Path) -> None:
    recipes = lanes_of(in_float64(recipe))
    assert_equal_to_solo_runs(recipes, train_packed(recipes), tmp_path)


@every_model
def test_in_fp32_each_lane_takes_the_first_steps_of_its_solo_run(recipe: Recipe, tmp_path: Path) -> None:
    recipes = lanes_of(replace(recipe, max_steps=3))
    heard = train_packed(recipes)
    for lane, each in enumerate(recipes):
        run = train(each, tmp_path / str(lane))
        end, packed, solo = heard.ends[lane].last, heard.losses(lane), losses(run)
        assert len(packed) == 3
        # The longest sums of these models have 400 terms, and each addition rounds by 6e-8: 2.4e-5 for each layer.
        assert packed[0] == pytest.approx(solo[0], rel=1e-4)
        # Weights whose gradient is all rounding move by up to `lr` either way under Adam and RMSprop, and change the
        # loss by no more than that gradient times `lr`; two steps do not amplify the rest tenfold.
        assert packed == pytest.approx(solo, rel=1e-3)
        assert end is not None
        assert {value.dtype for value in end.weights.values()} == {torch.float32}


@pytest.mark.parametrize(("micro_batch_size", "kept_bytes"), [(None, 32 << 20), (3, 1 << 18)])
def test_dropout_and_all_else_that_is_random_is_that_of_the_solo_run(
    micro_batch_size: int | None, kept_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the lanes go through in several parts.
    monkeypatch.setattr(stack, "_KEPT_BYTES", kept_bytes)
    recipe = in_float64(Restless(micro_batch_size=micro_batch_size))
    recipes = [replace(recipe, optim=KINDS[n % 5], init_seed=seed) for n, seed in enumerate((None, 3, None, 4, 0))]
    heard = train_packed(recipes)
    assert_equal_to_solo_runs(recipes, heard, tmp_path)
    assert heard.losses(0)[0] == pytest.approx(heard.losses(4)[0])
    assert heard.losses(0)[0] != pytest.approx(heard.losses(1)[0])
