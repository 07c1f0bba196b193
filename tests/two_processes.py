"""Jobs on some ranks of torch.distributed, without Ray: what many recipes can afford.

The ranks fetch their own rows, by the plan that Ray's stream cuts too. They are forked from a process that has imported
torch, once for all tests.
"""

import multiprocessing
import pickle
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from blitz.data.plan import Datasets, Shares, fetch
from blitz.launch.job import Job, row_bytes_of
from blitz.training.session import Session
from blitz.training.world import World


class _Silent:
    def step(self, number: int) -> None: ...

    def loss(self, value: float) -> None: ...

    def line(self, text: str) -> None: ...


def run_on_two(jobs: Sequence[Job], folder: Path, *, ranks: int = 2, sharded: bool = False) -> None:
    """Run the jobs one after the other on both ranks, or on so many, each from its newest checkpoint."""
    # With their rows, as workers receive them.
    work = [(job, {split: job.recipe.dataset(split) for split in ("train", "val")}, sharded) for job in jobs]
    folder.mkdir(exist_ok=True)
    (folder / "jobs.pickle").write_bytes(pickle.dumps(work))
    on_ranks(partial(_run_jobs, folder), folder, ranks=ranks)


def on_ranks(work: Callable[[int], None], folder: Path, *, ranks: int) -> None:
    """Call `work` with its rank on each of some ranks of torch.distributed."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.two_processes"])
    started = [server.Process(target=_run, args=(work, folder, rank, ranks)) for rank in range(ranks)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    (folder / "store").unlink(missing_ok=True)
    errors = [error.read_text() for error in sorted(folder.glob("error-*"))]
    assert all(process.exitcode == 0 for process in started), "\n".join(errors)


def _run(work: Callable[[int], None], folder: Path, rank: int, ranks: int) -> None:
    try:
        # A rank whose peer has failed stops at once, or at the latest after this time.
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks, timeout=timedelta(minutes=5)
        )
        work(rank)
        # Without a final barrier, one rank may close connections that the other still uses.
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (folder / f"error-{rank}").write_text(traceback.format_exc())
        raise


def _run_jobs(folder: Path, rank: int) -> None:
    work: list[tuple[Job, Datasets, bool]] = pickle.loads((folder / "jobs.pickle").read_bytes())
    for job, datasets, sharded in work:
        world = World.of(torch.device("cpu"), sharded=sharded)
        first_step = int(world.sum(torch.tensor(job.first_step() if world.leads else 0)))
        shares = Shares.of(job.plan, world_size=world.size, row_bytes=row_bytes_of(datasets))
        blocks = (fetch(datasets[chunk.split], shares, chunk, rank) for chunk in shares.chunks(first_step))
        job.start(blocks, Session(world, first_step, _Silent()))
