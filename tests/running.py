"""Running a recipe in tests, and inspecting its run."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import Tensor

from blitz.launch.launch import launch
from blitz.launch.placement import Placement
from blitz.launch.scale import FeedName, Scale
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from blitz.training.loop import Checkpoints, TrainJob
from blitz.training.prepared import prepare


def train(
    recipe: Recipe,
    storage: Path | str,
    *,
    num_workers: int = 0,
    max_failures: int = 0,
    use_gpu: Literal["auto", "yes", "no"] = "no",
    checkpoints: Checkpoints | None = None,
    feed: FeedName = "auto",
    hang_timeout_s: float | None = 60.0,
    shard: Literal["no", "full"] = "no",
) -> RunDirectory:
    """Train, or resume, in a folder or at a URI."""
    prepared, run = prepare(recipe), RunDirectory.of(str(storage))
    run.probe()
    prepared.begin(run)
    job = TrainJob(prepared.recipe, prepared.plan, run, checkpoints or Checkpoints())
    scale = Scale(
        num_workers=num_workers,
        max_failures=max_failures,
        use_gpu=use_gpu,
        feed=feed,
        hang_timeout_s=hang_timeout_s,
        shard=shard,
    )
    launch(job, prepared.datasets, Placement(scale))
    return run


def train_workers() -> list[psutil.Process]:
    """Ray Train's worker processes on the clusters of this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("RayTrainWorker" in part for part in process.cmdline()):
                found.append(process)
    return found


def result(run: RunDirectory) -> dict[str, Any]:
    """What result.json says, except where the time went, which differs between equal runs."""
    found = run.read_json("result.json")
    assert found is not None
    return untimed(found)


def untimed(found: Mapping[str, Any]) -> dict[str, Any]:
    """A result without its goodput."""
    return {name: value for name, value in found.items() if name != "goodput"}


def losses(run: RunDirectory) -> list[float]:
    """The training loss of every logged step."""
    return [line["train/loss"] for line in run.metrics() if "train/loss" in line]


def weights(run: RunDirectory, which: Literal["last"] | int = "last") -> dict[str, Tensor]:
    return Checkpoint.load(run, run.checkpoint_step(which)).weights


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def goodput_in(run: RunDirectory) -> dict[str, Any]:
    """Where the time of a finished run went."""
    found = run.read_json("result.json")
    assert found is not None
    return dict(found["goodput"])
