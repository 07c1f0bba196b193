"""Jobs on two ranks of torch.distributed, without Ray: what many recipes can afford.

The ranks fetch their own rows, by the plan that Ray's stream cuts too. `python -m tests.two_processes FOLDER RANK`
is one of them.
"""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from blitz.data.plan import Datasets, Shares, fetch
from blitz.launch.job import row_bytes_of
from blitz.training.loop import TrainJob
from blitz.training.session import Session
from blitz.training.world import World

_RANKS = 2


class _Silent:
    def step(self, number: int) -> None: ...

    def loss(self, value: float) -> None: ...

    def line(self, text: str) -> None: ...


def run_on_two(jobs: Sequence[TrainJob], folder: Path) -> None:
    """Run the jobs one after the other, each from its start on both ranks."""
    # With their rows, as workers receive them.
    work = [(job, {"train": job.recipe.dataset("train"), "val": job.recipe.dataset("val")}) for job in jobs]
    (folder / "jobs.pickle").write_bytes(pickle.dumps(work))
    command = [sys.executable, "-m", "tests.two_processes", str(folder)]
    ranks = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(_RANKS)]
    said = [process.communicate()[1] for process in ranks]
    assert all(process.returncode == 0 for process in ranks), "\n".join(said)


def _run(folder: Path, rank: int) -> None:
    # A rank whose peer has failed stops at once, or at the latest after this time.
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=_RANKS, timeout=timedelta(minutes=5)
    )
    world = World.of(torch.device("cpu"))
    work: list[tuple[TrainJob, Datasets]] = pickle.loads((folder / "jobs.pickle").read_bytes())
    for job, datasets in work:
        shares = Shares.of(job.plan, world_size=world.size, row_bytes=row_bytes_of(datasets))
        blocks = (fetch(datasets[chunk.split], shares, chunk, rank) for chunk in shares.chunks(0))
        job.start(blocks, Session(world, 0, _Silent()))
    # Without a final barrier, one rank may close connections that the other still uses.
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    _run(Path(sys.argv[1]), int(sys.argv[2]))
