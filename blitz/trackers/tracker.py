"""The interface of the adapters: one run in a tracker, over the tracker's own client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Literal, Protocol

from blitz.errors import require
from blitz.extras import require_extra

TrackerName = Literal["wandb", "mlflow", "trackio", "comet"]

Step = Mapping[str, Any]
"""The content of metrics.jsonl for one step: `step`, `epoch`, and metrics by name."""

State = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class Start:
    """What a run in the tracker is created from or found by."""

    key: str
    """32 random hexadecimal digits; the ID of the run, if the tracker accepts one."""
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
    """How the run ended; it may be resumed."""

    state: State
    summary: Mapping[str, str | float]
    """The best checkpoint's URI, the number of steps and the rows_digest."""
    files: Mapping[str, bytes]
    """The report and the run's small files, by their names."""


class Tracker(Protocol):
    """One run in a tracker. A method may raise any error of its client; the follower retries it later."""

    has_sweep_run: ClassVar[bool]
    """Whether a sweep is a run that is the parent of its trials; otherwise it is the name of a group."""

    @property
    def seconds_between(self) -> float:
        """Minimum seconds between two sends."""

    @property
    def is_durable(self) -> bool:
        """Whether sent data survives a kill of this process; if not, `last_step` is called at each start."""

    def open(self, start: Start) -> str:
        """Create the run, or find that of an earlier start; returns the tracker's ID."""

    def last_step(self) -> int | None:
        """The last step that the tracker has stored completely; None if there is none, or if that is unknown.

        Called if it is not known whether a send has arrived.
        """

    def send(self, steps: Sequence[Step], *, time_s: float) -> None:
        """Store steps, in order; `time_s`, in seconds since 1970, is the same if a send is repeated."""

    def close(self, end: End) -> None:
        """Store how the run ended, and release it; the run may be opened again."""


_CLIENTS: Mapping[TrackerName, tuple[str, str]] = {
    "wandb": ("wandb", "Wandb"),
    "mlflow": ("mlflow", "Mlflow"),
    "trackio": ("trackio", "Trackio"),
    "comet": ("comet_ml", "Comet"),
}
"""The client's module and the adapter's class."""


def require_clients(names: Sequence[TrackerName]) -> None:
    """Refuse a tracker that is unknown or whose client is not installed, without importing the client.

    Raises:
        UserError: if there is no such tracker.
        MissingExtra: if its client is not installed.
    """
    for name in names:
        require(name in _CLIENTS, f"--track {name}: there is no such tracker; there are {', '.join(_CLIENTS)}")
        require_extra(name, _CLIENTS[name][0], what=f"--track {name}")


def adapter(name: TrackerName) -> type[Tracker]:
    """The adapter's class; imports the tracker's client.

    Raises:
        MissingExtra: if it is not installed.
    """
    found: type[Tracker] = getattr(import_module(f"blitz.trackers.{name}"), _CLIENTS[name][1])
    return found
