"""Watches the ranks of a run on Ray: finds a hang, says which rank it is and where, and ends the ranks.

A thread of each rank sends its pulse, and the driver judges them together: one rank that hangs soon makes all others
wait for it. Ray Train then restarts the workers from the newest checkpoint, as after any failure.
"""

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import ray
from ray.util.queue import Queue

from blitz.launch.cluster.node_task import call_on_node, stack_group
from blitz.launch.hang import Beat, Process, Pulse, TrainingPulse, culprits, silences_of_hang, stacks_text, where
from blitz.launch.stacks import Dump, can_dump_stacks, dump_stacks, kill
from blitz.launch.straggler import SpeedReader
from blitz.run_files.directory import RunDirectory
from blitz.training.display import Display
from blitz.training.world import World

_SECONDS_FOR_A_NODE = 30.0
"""For a node to answer with the stacks of its processes: it may have to start a process for that."""
_NODES_AT_ONCE = 32
_SECONDS_TO_WRITE = 10.0
_SECONDS_TO_SEND = 10.0
_SECONDS_TO_FIRST_STEP = 0.1
"""Between looks at whether the first step is done, of which the driver hears at once."""
_LATE_S = 5.0
_FETCHES = "/blitz/data/plan.py:"
"""In a frame of a process that fetches rows."""
_BEATS = "/blitz/launch/cluster/hang_watch.py:"
"""In a frame of a rank, of this run or of another of the same Ray job, such as a trial."""


@contextmanager
def heartbeat(queue: Queue, pulse: TrainingPulse, speed: SpeedReader, world: World, *, start: str) -> Iterator[None]:
    """Within this context the pulse and the speed of this rank are sent to the driver."""
    can_dump_stacks(group := stack_group())
    process = (ray.get_runtime_context().get_node_id(), os.getpid())
    rank = {"start": start, "rank": world.rank, "world_size": world.size, "process": process, "thread": pulse.thread}
    rank |= {"ip": ray.util.get_node_ip_address(), "group": group}
    ends = threading.Event()

    def send(*, has_ended: bool) -> Any:
        # Plain values: the queue's process would import torch for a class of ours.
        read = speed.read()
        more = {"pulse": asdict(pulse.look()), "speed": asdict(read) if read else None}
        beat = {**rank, **more, "has_ended": has_ended}
        return queue.actor.put_nowait.remote(beat)  # type: ignore[attr-defined]

    def send_now_and_then() -> None:
        sent, has_stepped = -math.inf, False
        while True:
            if time.monotonic() - sent >= pulse.interval_s or has_stepped < pulse.has_stepped:
                sent, has_stepped = time.monotonic(), pulse.has_stepped
                send(has_ended=False)
            if ends.wait(pulse.interval_s if has_stepped else _SECONDS_TO_FIRST_STEP):
                return

    thread = threading.Thread(target=send_now_and_then, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
        # Waits until it has arrived, because this process may end now.
        with suppress(ray.exceptions.RayError):
            ray.get(send(has_ended=True), timeout=_SECONDS_TO_SEND)


class HangWatch:
    """The driver's part."""

    def __init__(self, run: RunDirectory, *, restarts: bool) -> None:
        self.ended_for = ""
        """The hang for which the ranks were ended, until new ones have started."""
        self._run, self._restarts = run, restarts
        self._start = ""
        self._beats: dict[int, Beat] = {}
        self._looked = time.monotonic()

    def receive(self, beat: Mapping[str, Any]) -> None:
        """A rank has sent its pulse."""
        known = {spec.name: beat[spec.name] for spec in fields(Beat) if spec.name in beat}
        received = Beat(**{**known, "pulse": Pulse(**beat["pulse"]), "arrived": time.monotonic()})
        if received.start > self._start:
            self._start, self._beats, self.ended_for = received.start, {}, ""
        if received.start == self._start:
            self._beats[received.rank] = received

    def look(self, display: Display) -> None:
        """Report a hang if there is one, and end the ranks; called again and again."""
        now = time.monotonic()
        since, self._looked = now - self._looked, now
        if since > _LATE_S:
            # This process was stopped or busy, and beats may wait to be received: that time does not count.
            self._pass_over(since)
        ranks = list(self._beats.values())
        silences = None if self.ended_for else silences_of_hang(ranks, now)
        if silences is not None:
            self._end(ranks, silences, display)

    def _pass_over(self, seconds: float) -> None:
        self._beats = {rank: replace(beat, arrived=beat.arrived + seconds) for rank, beat in self._beats.items()}

    def _end(self, ranks: list[Beat], silences: Mapping[int, float], display: Display) -> None:
        nodes = {beat.process[0] for beat in ranks}
        if not silences and any(beat.pulse.account == "data" for beat in ranks):
            # Any node may fetch rows.
            nodes |= {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        hang = _Hang.of(ranks, silences, _on_nodes(nodes, dump_stacks, ranks[0].group))
        if hang is None:
            # Judged again after as long a time.
            self._pass_over(max(beat.pulse.silent_s for beat in ranks))
            return
        self.ended_for = hang.what
        log = f"logs/{self._start}-hang.txt"
        then = "restarts from its newest checkpoint, if --max-failures allows" if self._restarts else "ends"
        display.line(f"{hang.what}; the stack of each thread is in {self._run}/{log}; the run {then}")
        # On a thread of its own: the storage may be what hangs.
        writes = threading.Thread(target=self._write, args=(hang, log), daemon=True)
        writes.start()
        writes.join(_SECONDS_TO_WRITE)
        _on_nodes(nodes, kill, ranks[0].group, pids=hang.to_kill)

    def _write(self, hang: "_Hang", log: str) -> None:
        with suppress(OSError):
            self._run.write(log, hang.stacks.encode())
        with suppress(OSError):
            self._run.add_event({**hang.event, "time": round(time.time(), 3), "log": log})


@dataclass(frozen=True)
class _Hang:
    what: str
    """Who hangs, and where."""
    event: dict[str, Any]
    stacks: str
    to_kill: frozenset[Process]
    """`kill` checks that they are of the Ray job."""

    @classmethod
    def of(cls, ranks: list[Beat], silences: Mapping[int, float], dumps: Mapping[Process, Dump]) -> "_Hang | None":
        """The hang of these ranks; None if a debugger holds one, or if none is left, which Ray Train notices."""
        found = {beat.rank: dumps[beat.process] for beat in ranks if beat.process in dumps}
        if not found or any(dump.traced for dump in found.values()):
            return None
        frames = {beat.rank: found[beat.rank].threads.get(beat.thread, []) for beat in ranks if beat.rank in found}
        named = [beat for beat in ranks if beat.rank in silences] or culprits(ranks, frames)
        explained = [beat.explain(silences.get(beat.rank), frames.get(beat.rank, [])) for beat in named]
        fetchers: dict[Process, list[str]] = {}
        if not silences and all(beat.pulse.account == "data" for beat in named):
            fetchers = {process: stack for process, dump in dumps.items() if (stack := _fetching(dump))}
            explained = [
                f"rows are not fetched, by process {pid}{where(stack)}" for (_, pid), stack in fetchers.items()
            ] + explained
        headings = {beat.process: f"rank {beat.rank} on {beat.ip}" for beat in ranks}
        listed = [(headings.get(process, "another process of the job"), dump) for process, dump in dumps.items()]
        first, what = named[0], "; ".join(explained)
        still = silences.get(first.rank, first.pulse.still_s)
        event = {"what": "hang", "step": first.pulse.step, "world_size": first.world_size, "error": what}
        to_kill = frozenset((*headings, *fetchers))
        return cls(what, {**event, "hang_seconds": round(still, 3)}, stacks_text(listed), to_kill)


def _fetching(dump: Dump) -> list[str]:
    """The stack of a process that fetches rows and is no rank, else nothing."""
    if any(_BEATS in frame for one in dump.threads.values() for frame in one):
        return []
    return next((one for one in dump.threads.values() if any(_FETCHES in frame for frame in one)), [])


def _on_nodes(
    nodes: Iterable[str], function: Any, group: str, *, pids: Iterable[Process] | None = None
) -> dict[Process, Any]:
    """What the function returns on each node, by node and process; a node that does not answer is Ray's to notice.

    It gets the group, and those of `pids` that are on its node.
    """

    def call(node: str) -> dict[Process, Any]:
        args = [group] if pids is None else [group, [pid for on, pid in pids if on == node]]
        with suppress(ray.exceptions.RayError):
            return {(node, one.pid): one for one in call_on_node(node, function, *args, seconds=_SECONDS_FOR_A_NODE)}
        return {}

    with ThreadPoolExecutor(_NODES_AT_ONCE) as calls:
        return {process: one for found in calls.map(call, nodes) for process, one in found.items()}
