"""What a training step chooses at random for all its rows, and weights that a step does not use."""

from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from blitz.recipes.dynamic_net import DynamicNetOnNoise
from blitz.run_files.directory import RunDirectory
from blitz.training.batches import StepBatch
from blitz.training.checkpoint import Checkpoint
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, same_bits, train, weights

SMALL = in_float64(DynamicNetOnNoise(epochs=12, log_every_steps=1, evaluate_every_steps=4))


def depths(seed: int, steps: int) -> list[int]:
    """How often the first steps repeat the middle layer."""
    batches = (StepBatch({}, torch.empty(0), 0, 0, np.empty(0, np.int64), seed, 0, step) for step in range(steps))
    return [DynamicNetOnNoise(seed=seed).choices(batch.step_draws)["repeats"] for batch in batches]


NOW_AND_THEN = replace(SMALL, seed=next(seed for seed in count() if [bool(n) for n in depths(seed, 4)] == [0, 1, 0, 1]))
"""Its middle layer has its first gradient in the second step, and none in the third."""


def momentum(run: RunDirectory) -> dict[str, torch.Tensor]:
    """Of the middle layer, at the end."""
    optimizer = Checkpoint.load(run, run.checkpoint_step("last")).optimizer
    return {name: value for name, value in optimizer.items() if "middle" in name}


def test_every_depth_is_drawn_and_the_seed_and_the_step_alone_decide_which() -> None:
    drawn = depths(0, 1000)
    assert depths(0, 1000) == drawn != depths(1, 1000)
    # Each has a chance of a quarter: 250, give or take four standard deviations.
    assert all(195 < drawn.count(depth) < 305 for depth in range(4))


def test_a_run_in_two_parts_draws_the_depths_of_a_whole_one(tmp_path: Path) -> None:
    whole = train(SMALL, tmp_path / "whole")
    train(replace(SMALL, max_steps=7), tmp_path / "parts")
    parts = train(SMALL, tmp_path / "parts")
    assert losses(parts) == losses(whole)
    assert same_bits(weights(parts), weights(whole))


def test_all_micro_batches_of_a_step_have_one_depth(tmp_path: Path) -> None:
    whole, split = (train(replace(SMALL, micro_batch_size=size), tmp_path / str(size)) for size in (None, 10))
    assert losses(split) == pytest.approx(losses(whole), rel=TOLERANCE)


def test_what_a_step_does_not_use_keeps_its_weights_and_its_momentum(tmp_path: Path) -> None:
    runs = [train(replace(NOW_AND_THEN, max_steps=steps), tmp_path / str(steps)) for steps in (1, 2, 3, 4)]
    middle = [weights(run)["middle.weight"] for run in runs]
    assert [not one.equal(other) for one, other in pairwise(middle)] == [True, False, True]
    assert not weights(runs[1])["output.weight"].equal(weights(runs[2])["output.weight"])
    assert same_bits(momentum(runs[1]), momentum(runs[2]))
    assert momentum(runs[2])["momentum_buffer/middle.weight"].abs().sum() > 0


def test_steps_with_and_without_a_layer_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    recipe = replace(NOW_AND_THEN, max_steps=4)
    torch.manual_seed(recipe.seed)
    model = recipe.build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=False)
    columns = recipe.dataset("train").columns
    for depth in depths(recipe.seed, 4):
        optimizer.zero_grad()
        outputs = model(torch.from_numpy(columns["inputs"]).double(), depth)
        nn.functional.mse_loss(outputs, torch.from_numpy(columns["targets"]).double(), reduction="sum").backward()
        optimizer.step()
    run = train(recipe, tmp_path)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights(run)[name], value, rtol=TOLERANCE, atol=TOLERANCE)


def test_evaluation_is_not_left_to_chance(tmp_path: Path) -> None:
    shallow, deep = (train(replace(SMALL, eval_repeats=depth), tmp_path / str(depth)) for depth in (0, 3))
    assert losses(shallow) == losses(deep)
    found = [[line["val/loss"] for line in run.metrics() if "val/loss" in line] for run in (shallow, deep)]
    assert len(found[0]) == 3
    assert all(one != other for one, other in zip(*found, strict=True))


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_two_workers_choose_the_depths_of_one_process(tmp_path: Path) -> None:
    alone, together = (train(NOW_AND_THEN, tmp_path / str(number), num_workers=number) for number in (0, 2))
    assert losses(together) == pytest.approx(losses(alone), rel=TOLERANCE)
    for name, value in momentum(alone).items():
        torch.testing.assert_close(momentum(together)[name], value, rtol=TOLERANCE, atol=TOLERANCE)
