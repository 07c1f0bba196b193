"""The driver's part of finding slow ranks: it says which one is slow, and adds it to the run's events."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from blitz.launch.straggler import Load, RankSpeed, Stragglers
from blitz.run_files.directory import RunDirectory
from blitz.training.clock import StepParts
from blitz.training.display import Display


class StragglerWatch:
    """Compares the speeds that ranks send with their heartbeats."""

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._start = run, ""
        self._names: dict[int, str] = {}
        self._speeds: dict[int, RankSpeed] = {}
        self._stragglers = Stragglers()

    def receive(self, beat: Mapping[str, Any]) -> None:
        """A rank has sent its speed."""
        if beat["start"] > self._start:
            self._start, self._names, self._speeds, self._stragglers = beat["start"], {}, {}, Stragglers()
        speed, rank = beat["speed"], beat["rank"]
        if beat["start"] == self._start and speed is not None:
            self._names[rank] = f"rank {rank} on {beat['ip']} (process {beat['process'][1]})"
            self._speeds[rank] = RankSpeed(StepParts(**speed["parts"]), Load(**speed["load"]))

    def look(self, display: Display) -> None:
        """Report what has changed; called again and again."""
        for rank, what in self._stragglers.look(self._speeds, time.monotonic()).items():
            text = f"{self._names[rank]} {what}"
            display.line(text)
            with suppress(OSError):
                self._run.add_event({"what": "straggler", "time": round(time.time(), 3), "error": text})
