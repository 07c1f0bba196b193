"""The average of weights: its values, what is evaluated and kept, and the bits of a resumed run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import blitz
from blitz.api.run import Run
from blitz.errors import UserError
from blitz.launch.local.in_process import world_here
from blitz.launch.scale import Scale
from blitz.optim import Optim, Swa
from blitz.training.checkpoint import Checkpoint
from blitz.training.loop import Checkpoints
from blitz.training.packed import why_not_packable
from tests.running import losses, result, same_bits, train, weights
from tests.training.test_loop import Noisy, killed_after
from tests.training.test_patience import Overfitting

DECAY = 0.8
RECIPE = Overfitting(ema=DECAY, epochs=6)


def averages(steps: int) -> list[float]:
    """Of a weight that is s after step s, and begins at 0."""
    found, average = [], 0.0
    for step in range(1, steps + 1):
        decay = min(DECAY, step / (step + 9))
        average = decay * average + (1 - decay) * step
        found.append(average)
    return found


def test_the_average_is_evaluated_kept_and_given_to_whoever_uses_the_run(tmp_path: Path) -> None:
    seen: list[float] = []

    def watch(model: nn.Module, metrics: Mapping[str, float], run: object) -> None:
        seen.append(next(model.parameters()).item())

    run = blitz.train(RECIPE, storage=tmp_path, report=False, num_workers=0, after_evaluation=watch)
    expected = averages(6)
    # A few roundings of float32.
    assert seen == pytest.approx(expected, rel=1e-6)
    evaluated = [line["val/loss"] for line in run.directory.metrics() if "val/loss" in line]
    assert evaluated == pytest.approx([(average - 4) ** 2 for average in expected], abs=1e-5)
    for which, step in (("last", 6), ("best", result(run.directory)["best_checkpoint"])):
        weight = Run(run.directory).model(which).state_dict()["weight"].item()  # type: ignore[arg-type]
        assert weight == pytest.approx(expected[step - 1], rel=1e-6)
    # Training itself continues with the weight that it would have had.
    assert losses(run.directory) == [0, -1, -2, -3, -4, -5]


def test_swa_averages_the_ends_of_the_last_epochs_at_a_constant_rate(tmp_path: Path) -> None:
    recipe = Overfitting(swa=Swa(from_epoch=3, lr=0.5), epochs=6, optim=Optim(name="sgd", lr=1.0, schedule="constant"))
    run = train(recipe, tmp_path)
    # The weight is 1, 2, 3, 3.5, 4 and 4.5 after the steps, of which each is an epoch.
    averages = [1, 2, 3, 3.25, 3.5, 3.75]
    assert [line["val/loss"] for line in run.metrics() if "val/loss" in line] == [(one - 4) ** 2 for one in averages]
    assert weights(run)["weight"].item() == 3.75
    assert result(run)["best_checkpoint"] == 6


def test_swa_is_the_average_of_torch_with_its_buffers(tmp_path: Path) -> None:
    recipe = Noisy()
    every = Checkpoints(keep=99)
    plain = train(recipe, tmp_path / "plain", checkpoints=every)
    averaged = train(replace(recipe, swa=Swa(from_epoch=2)), tmp_path / "swa")
    model = recipe.build_model()
    expected = AveragedModel(model, use_buffers=True)
    ends = [step for step in plain.checkpoint_steps() if step % 8 == 0 and step >= 16]
    assert len(ends) > 1
    for step in ends:
        model.load_state_dict(weights(plain, step))
        expected.update_parameters(model)
    found = weights(averaged)
    for name, value in expected.module.state_dict().items():
        if value.is_floating_point():
            # A few roundings of float32.
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [5, 10])
@pytest.mark.parametrize("average", [{"ema": 0.9}, {"swa": Swa(from_epoch=1, lr=0.02)}])
def test_a_resumed_run_has_the_bits_of_one_that_was_never_stopped(
    tmp_path: Path, stop: int, average: dict[str, Any]
) -> None:
    recipe = Noisy(**average)
    whole = train(recipe, tmp_path / "whole")
    killed_after(recipe, tmp_path / "parts", stop)
    parts = train(recipe, tmp_path / "parts")
    assert same_bits(weights(parts), weights(whole))
    assert losses(parts) == losses(whole)
    one, other = (Checkpoint.load(run, run.checkpoint_step("last")).optimizer for run in (parts, whole))
    assert same_bits(one, other)


def test_what_training_learns_does_not_depend_on_the_average(tmp_path: Path) -> None:
    averaged = train(Noisy(ema=0.9), tmp_path / "averaged")
    plain = train(Noisy(), tmp_path / "plain")
    assert losses(averaged) == losses(plain)
    kept = Checkpoint.load(averaged, averaged.checkpoint_step("last")).optimizer
    trained = {name.removeprefix("trained/"): one for name, one in kept.items() if name.startswith("trained/")}
    assert same_bits(trained, {name: weights(plain)[name] for name in trained})


@pytest.mark.cluster
def test_two_workers_keep_the_average_of_one(tmp_path: Path, ray_runtime: None) -> None:
    alone, two = (train(RECIPE, tmp_path / str(n), num_workers=n, checkpoints=Checkpoints()) for n in (0, 2))
    assert weights(two)["weight"].item() == pytest.approx(weights(alone)["weight"].item(), rel=1e-6)


def test_a_decay_that_is_none_is_refused_and_trials_that_have_one_are_not_packed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--ema is 1.0; it must be above 0 and below 1"):
        replace(RECIPE, ema=1.0)
    with pytest.raises(UserError, match=r"--ema and --swa.from-epoch: give one of them"):
        replace(RECIPE, swa=Swa(from_epoch=1))
    with pytest.raises(UserError, match=r"--swa.from-epoch is 7, and --epochs is 6; lower it"):
        train(Overfitting(swa=Swa(from_epoch=7), epochs=6), tmp_path)
    reason = why_not_packable(RECIPE, RECIPE.dataset("train"), world=world_here(Scale(use_gpu="no")))
    assert reason == "--ema averages the weights of one model, not of a stack"
