"""Curves of a run, thinned while metrics.jsonl is read: what they hold does not grow with the length of the run."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ACCOUNTS = {"compute": "compute", "data": "waiting for data", "evaluation": "evaluation", "checkpoint": "checkpoints"}
"""The accounts of time: their names in metrics.jsonl, and in reports."""

_MOST_POINTS = 1200
"""A longer curve is drawn as means of neighbours, with a band from the minimum to the maximum."""
_MOST_NAMES = 2000
_LINES_AT_A_TIME = 4096
_OF_TIME = tuple(f"{account}_seconds" for account in ACCOUNTS)

Line = dict[str, Any]


@dataclass(slots=True)
class Point:
    """Neighbouring values of a curve: their sum, minimum, maximum, and the step and epoch of the last."""

    count: int
    total: float
    low: float
    high: float
    step: int
    epoch: float

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return self.total / self.count

    def add(self, other: "Point") -> None:
        """Merge the values that come next."""
        self.count += other.count
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.step, self.epoch = other.step, other.epoch


class Series:
    """A curve as 1,200 points at most, each of the same number of values but for the last.

    Up to that many values each is a point of its own; from then on neighbours are joined in pairs whenever there is no
    more room, so that minimum and maximum are kept.
    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._each = 1

    def extend(self, values: list[float], steps: list[int], epochs: list[float]) -> None:
        """Add the next values, with their steps and epochs."""
        start = 0
        while start < len(values):
            last = self.points[-1] if self.points and self.points[-1].count < self._each else None
            if last is None and len(self.points) == _MOST_POINTS:
                for left, right in zip(self.points[::2], self.points[1::2], strict=True):
                    left.add(right)
                self.points, self._each = self.points[::2], self._each * 2
                continue
            stop = min(len(values), start + self._each - (last.count if last else 0))
            part = values[start:stop]
            new = Point(len(part), sum(part), min(part), max(part), steps[stop - 1], epochs[stop - 1])
            if last:
                last.add(new)
            else:
                self.points.append(new)
            start = stop

    @property
    def is_thinned(self) -> bool:
        """Whether a point may stand for several values."""
        return self._each > 1

    @property
    def means(self) -> list[float]:
        """The mean of each point."""
        return [point.mean for point in self.points]


@dataclass
class Curves:
    """The lines of metrics.jsonl, summarised."""

    series: dict[str, Series] = field(default_factory=dict)
    """By the names of the metrics, without those of single classes."""
    seconds: dict[str, float] = field(default_factory=dict)
    """The sum of each account of time."""
    world_sizes: set[int] = field(default_factory=set)
    step: int = 0
    """The highest step."""
    epoch: float = 0.0
    """The epoch of the last line."""

    @classmethod
    def of(cls, lines: Iterable[Line]) -> "Curves":
        """Read `lines` in one pass."""
        curves, rest = cls(), iter(lines)
        while some := list(itertools.islice(rest, _LINES_AT_A_TIME)):
            curves._add(some)
        return curves

    def _add(self, lines: list[Line]) -> None:
        self.step = max(self.step, max(line["step"] for line in lines))
        self.epoch = lines[-1].get("epoch") or 0.0
        for name in dict.fromkeys(name for line in lines for name in line):
            if name not in self.series:
                if name in ("step", "epoch") or name.count("/") > 1 or len(self.series) >= _MOST_NAMES:
                    continue
                self.series[name] = Series()
            there = [line for line in lines if line.get(name) is not None]
            values = [line[name] for line in there]
            steps, epochs = [line["step"] for line in there], [line.get("epoch") or 0.0 for line in there]
            self.series[name].extend(values, steps, epochs)
            if name in _OF_TIME:
                self.seconds[name] = self.seconds.get(name, 0.0) + sum(values)
            elif name == "world_size":
                self.world_sizes.update(values)
