"""A job in this process: no Ray, no daemon, one device."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from blitz.data.plan import Block, Chunk, Shares, fetch
from blitz.launch.job import Datasets, Job, row_bytes_of
from blitz.launch.progress_bar import ProgressBar
from blitz.launch.scale import Scale
from blitz.training.run_directory import first_step_of
from blitz.training.world import World


def run_in_process(job: Job, datasets: Datasets, scale: Scale) -> None:
    """Run a job on this machine's GPU, or on its CPUs."""
    use_gpu = scale.use_gpu != "no" and torch.cuda.is_available()
    world = World(rank=0, size=1, device=torch.device("cuda", 0) if use_gpu else torch.device("cpu"))
    first_step = first_step_of(job.plan, job.run)
    with ProgressBar(first_step=first_step, total_steps=job.plan.total_steps) as display:
        job.start(_blocks(job, datasets, first_step), world=world, first_step=first_step, display=display)


def _blocks(job: Job, datasets: Datasets, first_step: int) -> Iterable[Block]:
    fetched = _FetchedBlocks(datasets, Shares.of(job.plan, world_size=1, row_bytes=row_bytes_of(datasets)))
    return DataLoader(fetched, sampler=fetched.shares.chunks(first_step), batch_size=None, collate_fn=_as_fetched)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _FetchedBlocks:
    """What the DataLoader reads from: a chunk asked for is fetched as a block."""

    datasets: Datasets
    shares: Shares

    def __getitem__(self, chunk: Chunk) -> Block:
        return fetch(self.datasets[chunk.split], self.shares, chunk, rank=0)


def _as_fetched(block: Block) -> Block:
    return block
