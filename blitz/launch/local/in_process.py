"""A job in this process: no Ray, no daemon, one device."""

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext

import torch

from blitz.data.plan import Block, Datasets, Plan, Shares
from blitz.launch.job import Job, row_bytes_of
from blitz.launch.local.loader import Loader
from blitz.launch.local.progress_bar import ProgressBar
from blitz.launch.scale import Scale
from blitz.recipe import Recipe
from blitz.training.checkpoint_triggers import Notice, NoticeBoard
from blitz.training.display import Display
from blitz.training.world import World


def run_in_process(job: Job, datasets: Datasets, scale: Scale, *, display: Display | None = None) -> None:
    """Run a job on this machine's GPU, or on its CPUs; without a display it has a progress bar.

    Raises:
        Stopped: if this process is told to leave, and what it has done is saved.
    """
    first_step = job.first_step()
    shows: AbstractContextManager[Display] = (
        nullcontext(display) if display else ProgressBar(first_step=first_step, total_steps=job.plan.total_steps)
    )
    with (
        shows as shown,
        told_by_sigterm() as board,
        closing(blocks_here(job.recipe, job.plan, datasets, first_step=first_step, display=shown)) as blocks,
    ):
        job.start(blocks, world=world_here(scale), first_step=first_step, display=shown, board=board)


@contextmanager
def told_by_sigterm() -> Iterator[NoticeBoard]:
    """What Slurm, Kubernetes and spot machines send some seconds before they kill.

    Until somebody looks, as training does after each second, and once it has come, it ends this process as ever.
    """
    before = signal.getsignal(signal.SIGTERM)
    told, heeded = threading.Event(), threading.current_thread() is threading.main_thread()

    def note(*_: object) -> None:
        told.set()
        signal.signal(signal.SIGTERM, before)

    def look() -> Notice:
        if heeded and not told.is_set():
            signal.signal(signal.SIGTERM, note)
        return Notice.LEAVE if told.is_set() else Notice.NONE

    try:
        yield look
    finally:
        if heeded:
            signal.signal(signal.SIGTERM, before)


def world_here(scale: Scale) -> World:
    """This process alone, on its GPU if it is to use one and there is one."""
    use_gpu = scale.use_gpu != "no" and torch.cuda.is_available()
    return World(rank=0, size=1, device=torch.device("cuda", 0) if use_gpu else torch.device("cpu"))


def blocks_here(
    recipe: Recipe, plan: Plan, datasets: Datasets, *, first_step: int, display: Display
) -> Generator[Block, None, None]:
    """All blocks of a run from a step on, for one rank in this process."""
    row_bytes = row_bytes_of(datasets)
    loader = Loader(datasets, Shares.of(plan, world_size=1, row_bytes=row_bytes), row_bytes)
    return loader.blocks(first_step, workers=recipe.loader_workers, display=display)
