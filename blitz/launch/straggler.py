"""Which rank is slower than the others, and why: in a step all wait for the slowest."""

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blitz.training.clock import Clock, ClockReading, StepParts

TIMES_THE_MEDIAN = 2.0
_SECONDS = 50.0
"""So long a rank must be slow without a break before it is reported."""
_MUCH = 0.2
"""Share of the time of which it is worth speaking."""


@dataclass(frozen=True)
class Load:
    """What slows a process down that is not its own work."""

    cpu_wait: float
    """Share of the time for which the training thread could have run while other threads had the CPUs."""
    steal: float
    """Share of CPU time that the host gave to other virtual machines."""
    page_faults: float
    """Pages a second that are read from a disk: memory that was swapped out, or files."""


@dataclass(frozen=True)
class RankSpeed:
    """How fast a rank is."""

    parts: StepParts
    load: Load

    @property
    def work_s(self) -> float:
        """Seconds a step that do not depend on other ranks."""
        return self.parts.data_s + self.parts.own_s


class SpeedReader:
    """The speed of the thread that makes this object, since the last reading."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._reading = clock, ClockReading()
        self._thread = threading.get_native_id()
        self._counters, self._read_at = _counters(self._thread), time.monotonic()

    def read(self) -> RankSpeed | None:
        """None if no step was done."""
        parts, self._reading = self._clock.parts_since(self._reading)
        if parts is None:
            return None
        counters, now = _counters(self._thread), time.monotonic()
        waited, stolen, all_cpu, faults = (
            after - before for after, before in zip(counters, self._counters, strict=True)
        )
        seconds = max(1e-9, now - self._read_at)
        self._counters, self._read_at = counters, now
        return RankSpeed(parts, Load(waited / 1e9 / seconds, stolen / max(1.0, all_cpu), faults / seconds))


def _counters(thread: int) -> list[float]:
    """Nanoseconds for which a thread waited for a CPU, stolen and all ticks of the CPUs, and major page faults."""
    with suppress(OSError, ValueError, IndexError):
        waited = Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1]
        ticks = [float(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        faults = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[9]
        return [float(waited), ticks[7], sum(ticks), float(faults)]
    return [0.0, 0.0, 0.0, 0.0]


class Stragglers:
    """Finds ranks that stay slow."""

    def __init__(self) -> None:
        self._slow_since: dict[int, float] = {}
        self._reported: set[int] = set()

    def look(self, speeds: Mapping[int, RankSpeed], now: float) -> dict[int, str]:
        """Ranks to report now, each with what to say of it; `now` is in seconds."""
        found: dict[int, str] = {}
        for rank, speed in speeds.items() if len(speeds) > 1 else ():
            others = [other.work_s for number, other in speeds.items() if number != rank]
            if speed.work_s < TIMES_THE_MEDIAN * statistics.median(others):
                self._slow_since.pop(rank, None)
                if rank in self._reported:
                    self._reported.remove(rank)
                    found[rank] = "is as fast as the others again"
                continue
            slow_s = now - self._slow_since.setdefault(rank, now)
            if slow_s >= _SECONDS and rank not in self._reported:
                self._reported.add(rank)
                found[rank] = _explain(speed, others, slow_s)
        return found


def _explain(speed: RankSpeed, others: Sequence[float], slow_s: float) -> str:
    times = speed.work_s / max(statistics.median(others), 1e-9)
    parts = f"{speed.parts.data_s:.3g} s waiting for data, {speed.parts.own_s:.3g} s computing"
    return f"is {times:.1f} times as slow as the others, for {slow_s:.0f} s: {parts}; {_reason(speed)}"


def _reason(speed: RankSpeed) -> str:
    load = speed.load
    if speed.parts.data_s > speed.parts.own_s:
        return "likely because its rows arrive late"
    if load.steal > _MUCH:
        return f"likely because the host of its virtual machine is busy ({load.steal:.0%} of its CPU time is stolen)"
    if load.cpu_wait > _MUCH:
        return f"likely because other processes use its CPUs (it waits for one {load.cpu_wait:.0%} of the time)"
    if load.page_faults > 100:
        return f"likely because its memory is swapped out ({load.page_faults:.0f} pages a second are read)"
    return "its CPUs are free, so look at its clock or its GPU"
