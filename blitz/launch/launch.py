"""Run a job where its placement says: the flags decide, and the job's code is the same."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from blitz.data.parallel_map import parallel_map_by
from blitz.data.plan import Datasets
from blitz.errors import require
from blitz.launch.cluster.head_node import check_address
from blitz.launch.job import Job
from blitz.launch.limits import require_open_files
from blitz.launch.local.in_process import run_in_process
from blitz.launch.placement import Placement
from blitz.launch.scale import Node, workers_for


def check(placement: Placement) -> None:
    """Refuse what can never run, before anything is started. Only a connected cluster shows what resources it has.

    Raises:
        UserError: if this machine lacks what the scale asks for, or if no cluster answers at the address.
    """
    if placement.in_process:
        has_gpu = placement.scale.use_gpu != "yes" or torch.cuda.is_available()
        require(has_gpu, "--scale.use-gpu yes: torch finds no GPU here; use auto or no")
        return
    require_open_files()
    if placement.address:
        check_address(placement.address)
    else:
        workers_for(placement.scale, [Node(os.cpu_count() or 1, torch.cuda.device_count())])


@contextmanager
def placed(placement: Placement) -> Iterator[None]:
    """Check the placement and connect to its cluster; within this context work on many files is spread over it.

    Raises:
        UserError: if a job can never run there.
    """
    check(placement)
    # A local Ray has only this machine's CPUs, so it is not started before the job needs it.
    if placement.in_process or placement.address is None:
        yield
        return
    from blitz.launch.cluster.connection import connected
    from blitz.launch.cluster.ray_tasks import map_on_ray

    with connected(placement.address), parallel_map_by(map_on_ray):
        yield


def launch(job: Job, datasets: Datasets, placement: Placement) -> None:
    """Run a job and return when it is done.

    Raises:
        UserError: if it can never start there, or if it fails by a mistake that its user can mend.
    """
    if placement.in_process:
        run_in_process(job, datasets, placement.scale)
        return
    # Imported here because ray takes seconds to import and a run in this process does not need it.
    from blitz.launch.cluster.ray_train import run_on_ray

    run_on_ray(job, datasets, placement)
