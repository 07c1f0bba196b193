"""The interface of an adapter: one run in a tracker, over the tracker's own client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Literal, Protocol

from blitz.errors import require
from blitz.extras import require_extra

TrackerName = Literal["wandb", "mlflow", "trackio", "comet"]

Step = Mapping[str, Any]
"""All that metrics.jsonl holds about a step: `step`, `epoch`, and metrics by their names."""

State = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class Start:
    """What the run in the tracker is made from, or found by."""

    key: str
    """32 hexadecimal digits, chosen once for the run: where the tracker takes an ID, this is it."""
    id: str | None
    """The ID that the tracker gave the run at an earlier start."""
    name: str
    uri: str
    """The run directory."""
    config: Mapping[str, Any]
    """The settings, flat, with names such as `optim.lr`."""
    group: str | None = None
    """The name of the sweep that the run is a trial of."""
    parent: str | None = None
    """The tracker's ID of that sweep's run; for trackers that have one."""


@dataclass(frozen=True)
class End:
    """How the run ended, for now: a run that failed may be resumed."""

    state: State
    summary: Mapping[str, str | float]
    """The best checkpoint's URI, the number of steps, and what else result.json holds."""
    files: Mapping[str, bytes]
    """The report and the run's small files, by their names."""


class Tracker(Protocol):
    """One run in a tracker. Any method may raise what its client raises: it is tried again later."""

    has_sweep_run: ClassVar[bool]
    """Whether a sweep is a run of its own, the parent of its trials, rather than the name of a group."""

    @property
    def seconds_between(self) -> float:
        """Seconds from one send to the next."""

    @property
    def is_durable(self) -> bool:
        """Whether what was sent stays sent if this process is killed; if not, the store is asked at each start."""

    def open(self, start: Start) -> str:
        """Create the run, or find the one of an earlier start; the tracker's ID of it."""

    def last_step(self) -> int | None:
        """The last step that the tracker's store holds whole; None if it has none, or cannot tell.

        Asked where it is not known whether a send has arrived.
        """

    def send(self, steps: Sequence[Step], *, time_s: float) -> None:
        """Store steps, in order; `time_s`, in seconds since 1970, is the same if a send is repeated."""

    def close(self, end: End) -> None:
        """Store how the run ended, and let go of it; the run may be opened again."""


_CLIENTS: Mapping[TrackerName, tuple[str, str]] = {
    "wandb": ("wandb", "Wandb"),
    "mlflow": ("mlflow", "Mlflow"),
    "trackio": ("trackio", "Trackio"),
    "comet": ("comet_ml", "Comet"),
}
"""The client's module and the adapter's class."""


def require_clients(names: Sequence[TrackerName]) -> None:
    """Refuse a tracker that is not known, or whose client is not installed; none is imported for it.

    Raises:
        UserError: if there is no such tracker.
        MissingExtra: if its client is not installed.
    """
    for name in names:
        require(name in _CLIENTS, f"--track {name}: there is no such tracker; there are {', '.join(_CLIENTS)}")
        require_extra(name, _CLIENTS[name][0], what=f"--track {name}")


def adapter(name: TrackerName) -> type[Tracker]:
    """The class whose objects are runs in that tracker; the client is imported.

    Raises:
        MissingExtra: if it is not installed.
    """
    found: type[Tracker] = getattr(import_module(f"blitz.trackers.{name}"), _CLIENTS[name][1])
    return found
