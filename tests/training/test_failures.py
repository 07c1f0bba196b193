"""Losses that are not finite, and memory that runs out."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.errors import RunFailed, UserError
from blitz.optim import Optim
from blitz.recipe import Batch
from blitz.recipes.digits import Digits
from blitz.recipes.parabola import Parabola
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import Checkpoints
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, result, train, weights


def test_a_run_that_diverges_stops_before_it_is_saved_and_says_what_to_do(tmp_path: Path) -> None:
    # The gradient of a squared error grows with the error: each step makes the output bias 10^6 times as large.
    diverging = Parabola(epochs=1, optim=Optim(name="sgd", lr=1e6), log_every_steps=7)
    with pytest.raises(RunFailed, match=r"^the .* is (nan|inf) at step \d+; .*--optim.lr .*--on-nan skip$"):
        train(diverging, tmp_path, checkpoints=Checkpoints(every_steps=2))
    run = RunDirectory.of(str(tmp_path))
    for step in run.checkpoint_steps():
        assert all(weight.isfinite().all() for weight in weights(run, step).values())
    assert not run.exists("result.json")


class WithANaN(Digits):
    """Digits of which one row is not a number."""

    def dataset(self, split: Split) -> ArrayDataset:
        rows = super().dataset(split)
        inputs = rows.columns["inputs"].astype(np.float32)
        if split == "train":
            inputs[5] = math.nan
        return ArrayDataset(inputs=inputs, targets=rows.columns["targets"])


NAN = WithANaN(
    epochs=3, max_train_rows=60, global_batch_size=8, log_every_steps=1, on_nan="skip", optim=Optim(name="sgd", lr=0.01)
)


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize("grad_clip_norm", [None, 1.0])
def test_steps_that_are_not_finite_are_left_out_where_that_is_asked_for(
    micro_batch_size: int | None, grad_clip_norm: float | None, tmp_path: Path
) -> None:
    optim = replace(NAN.optim, grad_clip_norm=grad_clip_norm)
    run = train(replace(NAN, micro_batch_size=micro_batch_size, optim=optim), tmp_path)
    assert result(run)["steps"] == 24
    assert len(losses(run)) == 21
    assert all(map(math.isfinite, losses(run)))
    assert all(weight.isfinite().all() for weight in weights(run).values())
    with pytest.raises(RunFailed, match="the training loss is nan"):
        train(replace(NAN, on_nan="stop"), tmp_path / "stop")


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_every_rank_leaves_out_the_same_steps(tmp_path: Path) -> None:
    alone, together = (train(in_float64(NAN), tmp_path / str(workers), num_workers=workers) for workers in (0, 2))
    assert losses(together) == pytest.approx(losses(alone), rel=TOLERANCE)
    with pytest.raises(RunFailed, match=r"^the training loss is nan at step \d+"):
        train(replace(NAN, on_nan="stop"), tmp_path / "stop", num_workers=2)


@dataclass(frozen=True)
class Greedy(Digits):
    """A loss that asks for more memory than there is."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return super().loss(outputs, batch) + torch.empty(1 << 46).sum()


def test_where_memory_runs_out_a_smaller_batch_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"^out of memory in a pass over 32 rows .*--micro-batch-size 16, which"):
        train(Greedy(global_batch_size=32), tmp_path)


class Normed(Digits):
    """Digits with a batch norm over features, which has one value a row."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))

    def preprocess(self, batch: Batch) -> Batch:
        return {**batch, "inputs": batch["inputs"].float()}


NORMED = Normed(epochs=1, max_train_rows=17, max_eval_rows=3, global_batch_size=8)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"micro_batch_size": 1},
            "-size 1 makes a pass of 1 row of each 8, .*; give --micro-batch-size 2,",
        ),
        (
            {"micro_batch_size": 7},
            "-size 7 makes a pass of 1 row of each 8, .*; give --micro-batch-size 2,",
        ),
        ({"micro_batch_size": 2, "global_batch_size": 3}, "of each 3, .*; give --micro-batch-size 3,"),
        ({"global_batch_size": 1}, "--global-batch-size 1 is 1 row for each worker, .*; give --global-batch-size 2 or"),
    ],
)
def test_batch_norm_of_one_row_is_refused_in_the_first_step_with_the_mend(
    settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        train(replace(NORMED, **settings), tmp_path)
    assert RunDirectory.of(str(tmp_path)).metrics() == []


def test_a_last_batch_of_one_row_is_trained_on_beside_batch_norm(tmp_path: Path) -> None:
    assert result(train(NORMED, tmp_path))["steps"] == 3
