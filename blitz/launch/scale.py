"""Where a run happens, as flags."""

import os
import socket
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import torch

from blitz.errors import UserError, require

_SECONDS_TO_ANSWER = 5.0
_MIN_CPUS_PER_WORKER = 0.25
_DATA_CPUS = 1


@dataclass(frozen=True)
class Scale:
    """Where a run happens; nothing here changes what is learned."""

    num_workers: Literal["auto"] | int = "auto"
    """0 runs in this process, without Ray; N runs N Ray Train workers, on the cluster at RAY_ADDRESS or a local one.
    auto is 0 where RAY_ADDRESS is not set; on a cluster it is one worker a GPU, or without GPUs as many as leave a CPU
    for Ray Data."""
    use_gpu: Literal["auto", "yes", "no"] = "auto"
    """auto uses GPUs where there are some."""
    cpus_per_worker: float | None = None
    """CPUs that each Ray Train worker reserves; by default one, or less where there are fewer, but 1/4 at least."""
    max_failures: int = 0
    """On Ray: restart from the newest checkpoint after a failure, so many times."""

    def __post_init__(self) -> None:
        count, cpus = self.num_workers, self.cpus_per_worker
        require(count == "auto" or count >= 0, f"--scale.num-workers is {count}; it must be auto, 0 or more")
        require(cpus is None or cpus > 0, f"--scale.cpus-per-worker is {cpus}; it must be above 0")

    def check(self) -> None:
        """Refuse what this machine can never give, before anything is started; a cluster is asked once it is there.

        Raises:
            UserError: if it cannot.
        """
        address = os.environ.get("RAY_ADDRESS")
        if self.in_process:
            found = self.use_gpu != "yes" or torch.cuda.is_available()
            require(found, "--scale.use-gpu yes: torch finds no GPU here; use auto or no")
        elif address:
            _check_answers(address)
        else:
            workers_for(self, cpus=os.cpu_count() or 1, gpus=torch.cuda.device_count())

    @property
    def in_process(self) -> bool:
        """Whether the run happens in this process."""
        # A submitted Ray job finds RAY_ADDRESS set too.
        return self.num_workers == 0 or (self.num_workers == "auto" and not os.environ.get("RAY_ADDRESS"))


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    url = urlsplit(address if "://" in address else f"ray://{address}")
    require(
        url.scheme == "ray" and url.hostname is not None,
        f"RAY_ADDRESS is {address}, a dashboard's address, where jobs are submitted: "
        "use `ray job submit -- python -m jobs.train …`, or set RAY_ADDRESS to HOST:6379",
    )
    try:
        socket.create_connection((url.hostname or "", url.port or 6379), timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS is {address}, and nothing answers there ({error}); "
            "start the cluster, or unset it to run on this machine"
        ) from error


@dataclass(frozen=True)
class Workers:
    """What a scale comes to on a given cluster."""

    count: int
    cpus: float
    gpus: int


def workers_for(scale: Scale, *, cpus: float, gpus: float) -> Workers:
    """The workers of a run on a cluster of so many CPUs and GPUs, with a CPU left for Ray Data.

    Raises:
        UserError: if the cluster can never give them.
    """
    if scale.use_gpu == "yes" and gpus < 1:
        raise UserError("--scale.use-gpu yes: the cluster has no GPU; use auto or no")
    use_gpu = scale.use_gpu != "no" and gpus >= 1
    spare = cpus - _DATA_CPUS
    if scale.num_workers == "auto":
        count = int(gpus) if use_gpu else max(1, int(spare / (scale.cpus_per_worker or 1)))
    else:
        count = scale.num_workers
    if use_gpu and count > gpus:
        raise UserError(
            f"--scale.num-workers is {count}, and the cluster has {gpus:g} GPUs, one a worker; "
            f"ask for at most {int(gpus)}, or for CPUs with --scale.use-gpu no"
        )
    each = scale.cpus_per_worker or min(1.0, max(spare, 0) / count)
    least = scale.cpus_per_worker or _MIN_CPUS_PER_WORKER
    if each < least or each * count > spare:
        raise UserError(
            f"--scale.num-workers is {count}, and the cluster has {cpus:g} CPUs: with one for Ray Data and {least:g} a "
            f"worker it can give {int(max(spare, 0) / least)}; ask for fewer workers"
        )
    return Workers(count, each, int(use_gpu))
