"""Run a job in this process: no Ray, no daemon, one device."""

import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext

import torch

from blitz.data.plan import Block, Datasets, Plan, Shares
from blitz.launch.hang import TrainingPulse
from blitz.launch.job import Job, row_bytes_of
from blitz.launch.local.hang_watch import hang_watch
from blitz.launch.local.loader import Loader
from blitz.launch.progress_bar import ProgressBar
from blitz.launch.scale import Scale
from blitz.launch.stacks import created_at
from blitz.recipe import Recipe
from blitz.training.clock import Clock
from blitz.training.display import Display
from blitz.training.loop import TrainJob
from blitz.training.session import Origin, Preemption, PreemptionPoll, Session
from blitz.training.world import World


def run_in_process(job: Job, datasets: Datasets, scale: Scale, *, display: Display | None = None) -> None:
    """Run a job on this machine's GPU or its CPUs, with a progress bar unless another display is given.

    Raises:
        Stopped: if this process gets SIGTERM, once its work is saved.
    """
    first_step = job.first_step()
    shows: AbstractContextManager[Display] = (
        nullcontext(display) if display else ProgressBar(first_step=first_step, total_steps=job.plan.total_steps)
    )
    clock, origin = Clock(), Origin(requested=time.time(), process=created_at())
    with (
        shows as shown,
        threads_of(job.recipe, shown),
        sigterm_poll() as preemption,
        _watched(job, scale, clock, first_step, shown),
        closing(blocks_here(job.recipe, job.plan, datasets, first_step=first_step, display=shown)) as blocks,
    ):
        job.start(blocks, Session(world_here(scale), first_step, shown, preemption, clock, origin))


def _watched(job: Job, scale: Scale, clock: Clock, first_step: int, display: Display) -> AbstractContextManager[None]:
    # Evaluation and prediction have no steps by which one could see that they stand still.
    if scale.hang_timeout_s is None or not isinstance(job, TrainJob):
        return nullcontext()
    pulse = TrainingPulse(clock, first_step=first_step, timeout_s=scale.hang_timeout_s)
    return hang_watch(job.run, pulse, display)


@contextmanager
def threads_of(recipe: Recipe, display: Display) -> Iterator[None]:
    """Compute with as many threads as the recipe asks for, unless OMP_NUM_THREADS is set."""
    before, wanted = torch.get_num_threads(), recipe.cpu_threads
    if wanted is None or wanted == before or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    display.line(f"computes on {wanted} of {before} threads, as its steps are small; OMP_NUM_THREADS overrides this")
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def sigterm_poll() -> Iterator[PreemptionPoll]:
    """A poll for SIGTERM, which Slurm, Kubernetes and spot machines send some seconds before they kill.

    Only polling installs the handler, which training does every second: a job that never polls still ends at SIGTERM
    at once, and so does one at the second SIGTERM.
    """
    before = signal.getsignal(signal.SIGTERM)
    # Python sets signal handlers in the main thread only.
    received, can_handle = threading.Event(), threading.current_thread() is threading.main_thread()

    def handle(*_: object) -> None:
        received.set()
        signal.signal(signal.SIGTERM, before)

    def poll() -> Preemption:
        if can_handle and not received.is_set():
            signal.signal(signal.SIGTERM, handle)
        return Preemption.STOP if received.is_set() else Preemption.NONE

    try:
        yield poll
    finally:
        if can_handle:
            signal.signal(signal.SIGTERM, before)


def world_here(scale: Scale) -> World:
    """A world of this process alone, on a GPU if the scale allows one and there is one."""
    use_gpu = scale.use_gpu != "no" and torch.cuda.is_available()
    return World(rank=0, size=1, device=torch.device("cuda", 0) if use_gpu else torch.device("cpu"))


def blocks_here(
    recipe: Recipe, plan: Plan, datasets: Datasets, *, first_step: int, display: Display
) -> Generator[Block, None, None]:
    """All blocks of a run from a step on, for the only rank."""
    row_bytes = row_bytes_of(datasets)
    loader = Loader(datasets, Shares.of(plan, world_size=1, row_bytes=row_bytes), row_bytes)
    return loader.blocks(first_step, workers=recipe.loader_workers, display=display)
