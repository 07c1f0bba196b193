"""One run of LeNet on random pictures, by torchrun or on Ray: the same loop, recipe and rows.

    torchrun --nproc-per-node 2 -m bench.pictures_run FOLDER STEPS
    python -m bench.pictures_run FOLDER STEPS WORKERS

It leaves the run in FOLDER.
"""

import os
import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Shares, Split, fetch
from blitz.launch.job import row_bytes_of
from blitz.launch.launch import launch
from blitz.launch.placement import Placement
from blitz.launch.progress_bar import ProgressBar
from blitz.launch.scale import Scale
from blitz.models.lenet5 import LeNet
from blitz.recipe import Batch, Recipe, may_change
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import TrainJob
from blitz.training.session import Session
from blitz.training.world import World


@dataclass(frozen=True)
class Pictures(Recipe):
    """Ten classes of noise."""

    global_batch_size: int = 128
    log_every_steps: int = may_change(100)

    def dataset(self, split: Split) -> ArrayDataset:
        """10,000 pictures of noise, a fifth of CIFAR-10."""
        random = np.random.default_rng(0)
        inputs = random.integers(0, 256, size=(10_000, 3, 32, 32), dtype=np.uint8)
        return ArrayDataset(inputs=inputs, targets=random.integers(0, 10, size=len(inputs)))

    def preprocess(self, batch: Batch) -> Batch:
        """Scale pixels to [0, 1]."""
        return {**batch, "inputs": batch["inputs"].float() / 255}

    def build_model(self) -> nn.Module:
        """LeNet for CIFAR-10."""
        return LeNet()

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(outputs, batch["targets"], reduction="none")


def main() -> None:
    """Train in this rank of torchrun, or on so many workers."""
    folder, steps, *workers = sys.argv[1:]
    recipe = Pictures(epochs=1000, max_steps=int(steps))
    dataset = recipe.dataset("train")
    plan = recipe.plan(len(dataset), 0)
    job = TrainJob(recipe, plan, RunDirectory.of(folder))
    if workers:
        job.run.probe()
        launch(job, {"train": dataset}, Placement(Scale(num_workers=int(workers[0]))))
        return
    dist.init_process_group("gloo")
    world, row_bytes = World.of(torch.device("cpu")), row_bytes_of({"train": dataset})
    shares = Shares.of(plan, world_size=world.size, row_bytes=row_bytes)
    blocks = (fetch(dataset, shares, chunk, world.rank) for chunk in shares.chunks(0))
    with ProgressBar(first_step=0, total_steps=plan.total_steps) as display:
        job.start(blocks, Session(world, 0, display))
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
