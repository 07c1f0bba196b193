"""A pack that is killed and continues from its checkpoint."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blitz.launch.scale import Scale
from blitz.launch.tune.pack_checkpoint import PackCheckpoint
from blitz.launch.tune.packs import Lane, run_pack
from blitz.optim import Optim
from blitz.recipes.parabola import Parabola
from blitz.run_files.directory import RunDirectory
from blitz.run_files.sweep_directory import Goal
from blitz.training.packed import PackJob, Rungs
from tests.running import same_bits

RECIPE = Parabola(epochs=6, log_every_steps=1, max_train_rows=64, max_eval_rows=32, patience=4)
OPTIMS = (
    Optim("adamw", lr=0.01, weight_decay=0.1),
    Optim("sgd", lr=0.05, grad_clip_norm=1.0),
    Optim("momentum", lr=0.01, schedule="cosine"),
    Optim("rmsprop", lr=0.003),
    Optim("momentum", lr=1e40),
    Optim("adam", lr=0.02, schedule="one_cycle"),
)
RECIPES = tuple(replace(RECIPE, optim=optim, init_seed=number % 2) for number, optim in enumerate(OPTIMS))
DATASETS: Any = {split: RECIPE.dataset(split) for split in ("train", "val")}
STEPS_PER_EPOCH = RECIPE.plan(*map(len, DATASETS.values())).steps_per_epoch
HERE, GOAL = Scale(num_workers=0, use_gpu="no"), Goal("val/loss", "min")


class Killed(Exception):
    """What ends a pack in its middle here."""


def pack(rungs: Rungs | None) -> PackJob:
    return PackJob(RECIPES, RECIPE.plan(*map(len, DATASETS.values())), rungs)


def trained(job: PackJob, folder: Path, *, killed_at: int | None = None) -> tuple[list[Lane], list[int]]:
    """The lanes, and the steps of the evaluations that were made or reported again."""
    steps: list[int] = []

    def on_evaluation(lane: int, step: int, metrics: Any) -> None:
        steps.append(step)
        if step == killed_at:
            raise Killed

    checkpoint = PackCheckpoint(RunDirectory.of(str(folder)), "0000-6", job, every_s=0.0, most_of_the_time=math.inf)
    return run_pack(job, DATASETS, HERE, GOAL, on_evaluation, checkpoint), steps


def without_times(lane: Lane) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "examples_per_second"} for line in lane.metrics]


@pytest.mark.parametrize("epoch", [2, 5])
@pytest.mark.parametrize("halves", [False, True])
def test_a_killed_pack_ends_with_the_bits_of_one_that_was_not(tmp_path: Path, epoch: int, halves: bool) -> None:
    rungs = Rungs("val/loss", higher_is_better=False, grace_steps=2 * STEPS_PER_EPOCH) if halves else None
    job = pack(rungs)
    whole, _ = trained(job, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(job, tmp_path / "killed", killed_at=epoch * STEPS_PER_EPOCH)
    resumed, _ = trained(job, tmp_path / "killed")
    assert {lane.state for lane in whole} == ({"finished", "failed", "stopped"} if halves else {"finished", "failed"})
    for one, other in zip(whole, resumed, strict=True):
        assert (one.state, one.reason) == (other.state, other.reason)
        assert without_times(one) == without_times(other)
        assert [each.state for each in one.checkpoints] == [each.state for each in other.checkpoints]
        for mine, theirs in zip(one.checkpoints, other.checkpoints, strict=True):
            assert same_bits(mine.weights, theirs.weights)
            assert same_bits(mine.optimizer, theirs.optimizer)


def test_only_the_same_pack_continues_and_damage_is_no_checkpoint(tmp_path: Path) -> None:
    job = pack(None)
    checkpoint = PackCheckpoint(RunDirectory.of(str(tmp_path)), "0000-6", job)
    with pytest.raises(Killed):
        trained(job, tmp_path, killed_at=3 * STEPS_PER_EPOCH)
    found = checkpoint.load()
    assert found is not None
    assert found["pack"]["steps"] == 2 * STEPS_PER_EPOCH
    others = replace(job, recipes=job.recipes[:-1])
    assert replace(checkpoint, job=others).load() is None
    (tmp_path / checkpoint.path).write_bytes((tmp_path / checkpoint.path).read_bytes()[:-100])
    assert checkpoint.load() is None
    checkpoint.delete()
    assert not (tmp_path / "packs" / "0000-6").exists()
