"""Sends one run to one tracker, each step exactly once, even if this process is killed."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from blitz.run_files.directory import RunDirectory
from blitz.storage import joined
from blitz.trackers.step_reader import StepReader
from blitz.trackers.tracker import End, Start, State, Step, Tracker, TrackerName, adapter

_FILES = ("recipe.json", "events.jsonl", "report.html", "sweep.json", "trials.csv")


@dataclass(frozen=True)
class Mark:
    """How far a run was sent to a tracker: the content of trackers/<name>.json in the run directory."""

    key: str
    config: Mapping[str, Any]
    id: str | None = None
    """The tracker's ID of the run; None before the tracker was first reached."""
    step: int = 0
    """The last step that was sent."""
    sending: int | None = None
    """The last step of the send under way; after a crash only the tracker knows whether it arrived."""
    time_s: float = 0.0
    """When that send was first tried, in seconds since 1970."""
    ended: State | None = None
    """The state that was last reported to the tracker; None while the run is followed."""

    @classmethod
    def of(cls, run: RunDirectory, name: TrackerName, config: Mapping[str, Any]) -> "Mark":
        """The mark of an earlier start, or a new one.

        A run without a checkpoint that restarts with other settings becomes a new run in the tracker.
        """
        stored = run.read_json(_path(name))
        if stored is None or (stored["config"] != config and not run.checkpoint_steps()):
            return cls(uuid.uuid4().hex, config)
        return cls(**{**stored, "config": config})


def _path(name: TrackerName) -> str:
    return f"trackers/{name}.json"


def tracker_id(run: RunDirectory, name: TrackerName) -> str | None:
    """The tracker's ID of a run; None if the tracker has not been reached yet."""
    stored = run.read_json(_path(name))
    return stored["id"] if stored else None


def config_of(run: RunDirectory) -> dict[str, Any] | None:
    """The settings of a run or a sweep, flattened; None until they are written."""
    stored = run.read_json("recipe.json") or run.read_json("sweep.json")
    return None if stored is None else _flat(stored)


def _flat(stored: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in stored.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


class Follower:
    """Sends the content of a run's files to its run in a tracker.

    The mark records each send before it starts and after it has succeeded. If the process dies in between, the next
    start queries the tracker for the last step that it has.
    """

    def __init__(
        self,
        run: RunDirectory,
        name: TrackerName,
        config: Mapping[str, Any],
        *,
        group: str | None = None,
        parent: str | None = None,
    ) -> None:
        self._run, self._name, self._group, self._parent = run, name, group, parent
        self._mark = Mark.of(run, name, config)
        self._reader = StepReader(run)
        self._unsent: list[Step] = []
        self._tracker: Tracker | None = None
        self._sent_at = 0.0

    def catch_up(self, *, is_running: bool, complete_to: int = 0, at_once: bool = False) -> bool:
        """Send the next complete steps, at most one piece of the file; returns whether more are left.

        Args:
            is_running: whether the run may still write more.
            complete_to: the last step that is complete.
            at_once: do not wait for `seconds_between` since the last send.
        """
        if is_running:
            self._opened()
        if self._tracker is not None and not at_once and not self._is_due(self._tracker):
            return False
        at_end = False
        while not self._unsent and not at_end:
            steps, at_end = self._reader.read(complete_to=complete_to)
            self._unsent = [step for step in steps if step["step"] > self._mark.step]
        if self._unsent:
            self._send(self._opened())
        return not at_end

    def _is_due(self, tracker: Tracker) -> bool:
        return time.monotonic() - self._sent_at >= tracker.seconds_between

    def _opened(self) -> Tracker:
        if self._tracker is None:
            mark, tracker = self._mark, adapter(self._name)()
            # The key is stored first, because a run that the tracker then creates is found by it.
            self._write(mark)
            name = f"{self._group}-{self._run.name}" if self._group else self._run.name
            start = Start(mark.key, mark.id, name, self._run.uri, mark.config, self._group, self._parent)
            mark = replace(mark, id=tracker.open(start), ended=None)
            if not tracker.is_durable and (stored := tracker.last_step()) is not None:
                mark = replace(mark, step=min(mark.step, stored))
            self._write(mark)
            self._tracker = tracker
        return self._tracker

    def _send(self, tracker: Tracker) -> None:
        time_s = round(time.time(), 3)
        if self._mark.sending is not None:
            # With the same time the tracker can recognise metrics of a step that arrived only in part.
            time_s = self._mark.time_s
            stored = min(tracker.last_step() or 0, self._mark.sending)
            self._write(replace(self._mark, step=max(self._mark.step, stored), sending=None))
            self._unsent = [step for step in self._unsent if step["step"] > self._mark.step]
            if not self._unsent:
                return
        last = self._unsent[-1]["step"]
        self._write(replace(self._mark, sending=last, time_s=time_s))
        tracker.send(self._unsent, time_s=time_s)
        self._write(replace(self._mark, step=last, sending=None))
        self._unsent, self._sent_at = [], time.monotonic()

    def end(self, state: State) -> None:
        """Report to the tracker how the run ended, once."""
        if self._mark.ended != state or self._tracker is not None:
            self._opened().close(End(state, self._summary(), self._files()))
            self._tracker = None
            self._write(replace(self._mark, ended=state))

    def _summary(self) -> dict[str, str | float]:
        # For a sweep this is the best trial, since the checkpoints of the others are deleted.
        run = self._run.part("best") if self._run.exists("sweep.json") else self._run
        result = run.read_json("result.json")
        if result is None:
            return {}
        best = {} if self._group else {"best_checkpoint": joined(run.uri, f"checkpoints/{result['best_checkpoint']}")}
        return {**best, "steps": result["steps"], "rows_digest": result["rows_digest"]}

    def _files(self) -> dict[str, bytes]:
        return {name: self._run.read(name) for name in _FILES if self._run.exists(name)}

    def _write(self, mark: Mark) -> None:
        if mark != self._mark or not self._run.exists(_path(self._name)):
            self._run.write_json(_path(self._name), asdict(mark))
        self._mark = mark
