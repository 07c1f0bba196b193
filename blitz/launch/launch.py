"""Where a run happens is a flag: here it is read."""

from blitz.launch.in_process import run_in_process
from blitz.launch.job import Datasets, Job
from blitz.launch.scale import Scale


def launch(job: Job, datasets: Datasets, scale: Scale) -> None:
    """Run a job where `scale` says, and return when it is done.

    Raises:
        UserError: if it can never start there, or if it fails by a mistake that its user can mend.
    """
    if scale.in_process:
        run_in_process(job, datasets, scale)
        return
    # Here, because ray takes seconds to import and a run in this process has no use for it.
    from blitz.launch.on_ray import run_on_ray

    run_on_ray(job, datasets, scale)
