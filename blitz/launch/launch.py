"""Where a run happens is a flag: here it is read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from blitz.data.parallel_map import spread_by
from blitz.data.plan import Datasets
from blitz.launch.job import Job
from blitz.launch.local.in_process import run_in_process
from blitz.launch.scale import Scale


@contextmanager
def place_of(scale: Scale) -> Iterator[None]:
    """Where a job will be launched; what has to be done on many files before is done there too.

    Raises:
        UserError: if it can never be launched there.
    """
    scale.check()
    # A local Ray is this machine once more: there is no reason to wait for it before it is needed.
    if scale.in_process or not os.environ.get("RAY_ADDRESS"):
        yield
        return
    from blitz.launch.cluster.connection import connected
    from blitz.launch.cluster.ray_tasks import map_on_ray

    with connected(), spread_by(map_on_ray):
        yield


def launch(job: Job, datasets: Datasets, scale: Scale) -> None:
    """Run a job where `scale` says, and return when it is done.

    Raises:
        UserError: if it can never start there, or if it fails by a mistake that its user can mend.
    """
    if scale.in_process:
        run_in_process(job, datasets, scale)
        return
    # Here, because ray takes seconds to import and a run in this process has no use for it.
    from blitz.launch.cluster.ray_train import run_on_ray

    run_on_ray(job, datasets, scale)
