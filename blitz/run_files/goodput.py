"""Goodput: the share of a run's time, since it was first started, that went into steps that count.

It follows from the run's events alone. Each start of the run says when it was requested and what the checkpoint that it
resumes from had cost so far; what a start did beyond the checkpoint that the next one resumes from is lost.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from blitz.errors import DamagedFile
from blitz.run_files.directory import RunDirectory

STEPS, HANGS = "steps that count", "hangs"
_WAITING, _START_UP, _LOST, _STOPPED = "waiting for machines", "start-up", "lost steps", "stopped"
_ACCOUNTS = {
    "compute": STEPS,
    "data": "waiting for data",
    "evaluation": "evaluation",
    "checkpoint": "checkpoints",
}
"""Accounts of the training clock, and the causes that they are."""
CAUSES = (*_ACCOUNTS.values(), _START_UP, _WAITING, _LOST, HANGS, _STOPPED)

_ENDS = ("finished", "failed", "interrupted", "stopped")


@dataclass(frozen=True)
class Span:
    """Time that a run spent on one cause."""

    cause: str
    begins: float
    """Seconds since 1970. Steps, evaluation and checkpoints of one start alternate; here one follows the other."""
    seconds: float


@dataclass(frozen=True)
class Goodput:
    """Where the time of a run went, over all its starts."""

    spans: Sequence[Span]
    """In their order, without gaps."""

    @property
    def seconds(self) -> dict[str, float]:
        """By cause, those that took any time."""
        totals = {cause: sum(span.seconds for span in self.spans if span.cause == cause) for cause in CAUSES}
        return {cause: round(seconds, 3) for cause, seconds in totals.items() if seconds >= 0.0005}

    @property
    def share(self) -> float:
        """The share of the time that went into steps that count."""
        whole = sum(span.seconds for span in self.spans)
        return self.seconds.get(STEPS, 0.0) / whole if whole else 0.0

    def to_json(self) -> dict[str, Any]:
        """What result.json holds."""
        return {"share": round(self.share, 4), "seconds": self.seconds}


def goodput(
    events: Iterable[Mapping[str, Any]], *, checkpoint: Mapping[str, float] | None = None, until: float | None = None
) -> Goodput | None:
    """The goodput of a run; None if its events say too little, as those of older versions do.

    `checkpoint` is what its newest checkpoint has cost by account, and `until` when a run that has not ended was last
    seen alive; a finished run needs neither.
    """
    starts = _starts(events)
    if not starts:
        return None
    # A start may resume from an older checkpoint than the one before it did: then that one's steps are lost as well.
    counted = [dict(start.counted) for start in starts[1:]] + [starts[-1].finished or dict(checkpoint or {})]
    for earlier, later in reversed(list(itertools.pairwise(counted))):
        earlier.update({account: min(earlier.get(account, 0.0), later.get(account, 0.0)) for account in _ACCOUNTS})
    timeline = _Timeline(starts[0].began)
    before: Mapping[str, float] = {}
    for start, following, reached in zip(starts, [*starts[1:], None], counted, strict=True):
        _add_start(timeline, start)
        _add_work(timeline, start, start.ends(following, until), before, reached)
        before = reached
    return Goodput(timeline.spans)


def goodput_of(
    run: RunDirectory, *, checkpoint: Mapping[str, float] | None = None, until: float | None = None
) -> Goodput | None:
    """The goodput of a run in a directory; None also if its events are damaged, which must not hide the run."""
    with suppress(DamagedFile):
        return goodput(run.events(), checkpoint=checkpoint, until=until)
    return None


@dataclass
class _Start:
    """One start of the run's processes."""

    began: float
    """When its command began."""
    requested: float
    process: float
    trains: float
    """When training began."""
    last_written: float
    """When the start before it last wrote a metric."""
    counted: Mapping[str, float]
    seen: float = 0.0
    """The time of its newest event."""
    ended: float | None = None
    finished: dict[str, float] | None = None
    hangs_since: float | None = None
    """Since when it hangs, and does until it is ended."""
    overcome: tuple[tuple[str, float], ...] = ()
    """Hangs that ended by themselves: account and seconds."""

    def ends(self, following: "_Start | None", until: float | None) -> float:
        if self.ended is not None:
            return self.ended
        if following is None:
            return max(self.trains, self.seen, until or 0.0)
        # The same command restarts the workers when it notices that they have failed.
        noticed = following.requested if following.began <= self.trains else 0.0
        return max(self.trains, following.last_written, noticed)


class _Timeline:
    def __init__(self, begins: float) -> None:
        self.now = begins
        self.spans: list[Span] = []

    def until(self, time: float, cause: str) -> None:
        """`cause` lasts until `time`, if that is not over yet."""
        self.add(time - self.now, cause)

    def add(self, seconds: float, cause: str) -> None:
        if seconds > 0:
            self.spans.append(Span(cause, self.now, seconds))
            self.now += seconds


def _starts(events: Iterable[Mapping[str, Any]]) -> list[_Start]:
    starts: list[_Start] = []
    for event in events:
        what, time = event["what"], event["time"]
        if what in ("started", "resumed") and "began" in event:
            began = event["began"]
            requested = event.get("requested", began)
            process, written = event.get("process", requested), event.get("last_written", 0.0)
            starts.append(_Start(began, requested, process, time, written, event.get("counted", {})))
        elif starts and what in _ENDS:
            starts[-1].ended, starts[-1].finished = time, event.get("counted")
            if what == "finished":
                starts[-1].hangs_since = None
        if starts:
            starts[-1].seen = time
        if starts and what == "hang":
            starts[-1].hangs_since = time - event.get("hang_seconds", 0.0)
        elif starts and what == "hang ended" and (starts[-1].ended is None or starts[-1].finished):
            # Otherwise the run was interrupted within the hang, which no checkpoint has counted.
            starts[-1].hangs_since = None
            starts[-1].overcome += ((str(event.get("account")), event.get("hang_seconds", 0.0)),)
    return starts


def _add_start(timeline: _Timeline, start: _Start) -> None:
    timeline.until(start.began, _STOPPED)
    timeline.until(start.requested, _START_UP)
    timeline.until(start.process, _WAITING)
    timeline.until(start.trains, _START_UP)


def _add_work(
    timeline: _Timeline, start: _Start, end: float, before: Mapping[str, float], reached: Mapping[str, float]
) -> None:
    hung = dict.fromkeys(_ACCOUNTS, 0.0)
    for account, seconds in start.overcome:
        hung[account] = hung.get(account, 0.0) + seconds
    for account, cause in _ACCOUNTS.items():
        timeline.add(reached.get(account, 0.0) - before.get(account, 0.0) - hung[account], cause)
    timeline.add(sum(hung.values()), HANGS)
    timeline.until(end if start.hangs_since is None else min(end, start.hangs_since), _LOST)
    timeline.until(end, HANGS)
