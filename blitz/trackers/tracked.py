"""Follows a run or a sweep with trackers: one thread for each reads the files while the driver works."""

import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from blitz.errors import Stopped, UserError, first_line
from blitz.run_files.directory import RunDirectory
from blitz.trackers.follower import Follower, config_of, tracker_id
from blitz.trackers.tracker import State, TrackerName, adapter, require_clients

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_BETWEEN_LOOKS_AT_OBJECTS = 10.0
"""Not more often than metrics are written to an object store."""
_MOST_SECONDS_BETWEEN_TRIES = 60.0
_PATIENCE_S = 30.0
"""At the end the driver waits for a tracker as long as it accepts something within this time."""

Say = Callable[[str], None]
"""Prints a line for the user."""


@dataclass(frozen=True)
class Followed:
    """A run to follow, and its current state."""

    run: RunDirectory
    state: State = "running"
    complete_to: int = 0
    """The last step that is complete."""
    parent: RunDirectory | None = None
    """The sweep that it is a trial of."""


Source = Callable[[State, Container[str]], Iterable[Followed]]
"""Takes the state of this process's work and the URIs of runs that are done; returns the other runs, a parent before
its children."""


@contextmanager
def tracked(run: RunDirectory, names: Sequence[TrackerName], *, say: Say) -> Iterator[None]:
    """Send a run to trackers within this context, and what is left at its end.

    A tracker that does not answer is reported once, and catches up later, at the latest at the next start of the run.

    Raises:
        MissingExtra: if the client of a tracker is not installed.
    """

    def followed(state: State, done: Container[str]) -> Iterator[Followed]:
        if run.uri not in done:
            # Steps beyond the newest checkpoint are repeated when the run is resumed.
            steps = run.checkpoint_steps() if state != "running" else []
            yield Followed(run, state, max(steps, default=0))

    with _following(run, names, followed, say=say):
        yield


@contextmanager
def tracked_sweep(sweep: RunDirectory, names: Sequence[TrackerName], *, say: Say) -> Iterator[None]:
    """Send the trials of a sweep to trackers within this context, grouped in the way of each tracker.

    Trackers that do not answer are treated as by `tracked`.

    Raises:
        MissingExtra: if the client of a tracker is not installed.
    """

    def followed(state: State, done: Container[str]) -> Iterator[Followed]:
        if sweep.uri not in done:
            yield Followed(sweep, "running")
        for name in sorted(sweep.names("trials")):
            run = sweep.part(f"trials/{name}")
            if run.uri not in done and (trial := run.read_json("trial.json")) is not None:
                ended = _STATES.get(trial["state"])
                yield Followed(run, ended or state, sys.maxsize if ended else 0, parent=sweep)
        if state != "running" and sweep.uri not in done:
            yield Followed(sweep, state)

    with _following(sweep, names, followed, say=say):
        yield


_STATES: dict[str, State] = {"finished": "finished", "stopped": "finished", "failed": "failed"}
"""States of trials that have ended."""


@contextmanager
def _following(run: RunDirectory, names: Sequence[TrackerName], source: Source, *, say: Say) -> Iterator[None]:
    require_clients(names)
    for name in names:
        # Here, not in the thread: this process may fork loader processes while a library is being loaded there.
        adapter(name)
    state: State = "running"
    seconds = _SECONDS_BETWEEN_LOOKS if run.appends else _SECONDS_BETWEEN_LOOKS_AT_OBJECTS
    followers = [_Background(name, lambda done: source(state, done), seconds, say) for name in dict.fromkeys(names)]
    for one in followers:
        one.start()
    try:
        yield
        state = "finished"
    except (KeyboardInterrupt, Stopped):
        state = "interrupted"
        raise
    except BaseException:
        state = "failed"
        raise
    finally:
        for one in followers:
            one.stop()
        for one in followers:
            one.wait()


_Runs = Callable[[Container[str]], Iterable[Followed]]


class _Background:
    """A thread that sends runs to one tracker; its errors do not affect the run."""

    def __init__(self, name: TrackerName, source: _Runs, seconds_between_looks: float, say: Say) -> None:
        self._name, self._source, self._seconds, self._say = name, source, seconds_between_looks, say
        self._open: dict[str, Follower] = {}
        self._done: set[str] = set()
        self._stopping = threading.Event()
        self._has_warned, self._passes, self._is_behind = False, 0, True
        # A client that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._follow, name=f"tracker-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to send what is left and to end."""
        self._stopping.set()

    def wait(self) -> None:
        """Return once everything is sent, or once the tracker accepts nothing more."""
        before = -1
        while self._thread.is_alive() and self._passes != before:
            before = self._passes
            self._thread.join(_PATIENCE_S)
        if self._is_behind:
            self._say(f"{self._name} does not have everything yet; the same command sends the rest")

    def _follow(self) -> None:
        seconds = 0.0
        while True:
            self._stopping.wait(seconds)
            is_last = self._stopping.is_set()
            try:
                self._look(at_once=is_last)
            except Exception as error:
                self._warn(error)
                seconds = min(_MOST_SECONDS_BETWEEN_TRIES, max(self._seconds, 2 * seconds))
            else:
                seconds = self._seconds
                self._is_behind = not is_last
            if is_last:
                return

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            why = f"{kind}{first_line(error)}"
            self._say(f"{self._name} cannot be reached ({why}); training continues, and what is missing is sent later")

    def _look(self, *, at_once: bool) -> None:
        """Send what is new in every run, and close those that have ended."""
        for one in self._source(self._done):
            if (follower := self._follower(one)) is None:
                continue
            is_running, now = one.state == "running", at_once or one.state != "running"
            while follower.catch_up(is_running=is_running, complete_to=one.complete_to, at_once=now):
                self._passes += 1
            if not is_running:
                follower.end(one.state)
                del self._open[one.run.uri]
                self._done.add(one.run.uri)
            self._passes += 1

    def _follower(self, one: Followed) -> Follower | None:
        """The follower of a run; None while there is nothing to follow."""
        if one.run.uri not in self._open:
            is_sweep = one.parent is None and one.run.exists("sweep.json")
            config = config_of(one.run)
            if config is None or (is_sweep and not adapter(self._name).has_sweep_run):
                return None
            group = one.parent.name if one.parent else None
            parent = tracker_id(one.parent, self._name) if one.parent else None
            self._open[one.run.uri] = Follower(one.run, self._name, config, group=group, parent=parent)
        return self._open[one.run.uri]
