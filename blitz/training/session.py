"""What the process that runs a job passes to it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from blitz.training.clock import Clock
from blitz.training.display import Display
from blitz.training.world import World


class Preemption(IntEnum):
    """The announced preemption of the machines that a run uses."""

    NONE = 0
    SAVE = 1
    """A machine will be preempted; keep training until then."""
    STOP = 2
    """Save and stop."""


PreemptionPoll = Callable[[], Preemption]
"""Returns the state now; all ranks call it equally often."""


def never_preempted() -> Preemption:
    """The poll where nothing announces a preemption."""
    return Preemption.NONE


@dataclass(frozen=True)
class Origin:
    """When a start of a run began, in seconds since 1970."""

    requested: float
    """When the workers were requested: by the command, or after a failure."""
    process: float
    """When this process was created."""


@dataclass(frozen=True)
class Session:
    """One rank's start of a job."""

    world: World
    first_step: int
    """The step to start or resume at; the blocks start there too."""
    display: Display
    preemption: PreemptionPoll = never_preempted
    clock: Clock = field(default_factory=Clock)
    """Where the job's time goes, by which the launching process sees its progress."""
    origin: Origin | None = None
