"""Where a job runs: the flags of its scale, and the cluster that they refer to."""

import os
from dataclasses import dataclass, field

from blitz.launch.scale import Scale


def _ray_address() -> str | None:
    return os.environ.get("RAY_ADDRESS") or None


@dataclass(frozen=True)
class Placement:
    """Where a job runs; the only reader of RAY_ADDRESS, which everything below is passed."""

    scale: Scale
    address: str | None = field(default_factory=_ray_address)
    """The cluster, as `ray.init` takes it: auto, HOST:PORT, ray://HOST:PORT, or local for a Ray of this machine's own;
    None where no cluster is named. By default RAY_ADDRESS."""

    @property
    def in_process(self) -> bool:
        """Whether the job runs in this process, without Ray."""
        # A submitted Ray job has RAY_ADDRESS too.
        auto, elastic = self.scale.num_workers == "auto", self.scale.max_workers is not None
        return self.scale.num_workers == 0 or (auto and not elastic and self.address is None)
