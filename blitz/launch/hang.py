"""Whether training stands still: judged by a thread beside it, which also runs while training hangs."""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from blitz.launch.stacks import Dump
from blitz.training.clock import Clock

_TIMES_THE_LONGEST = 3.0
_TIMES_APART = 10.0
"""Start-up, compilation, evaluation and checkpoints may take so many times as long as a step."""
_SHARE_OF_TIMEOUT = 0.75
"""The rest of the timeout is for the next look, the message to the driver and the stacks."""
_MOST_BETWEEN_LOOKS_S = 7.5
_LATE_S = 5.0
_COMPILES = frozenset({"torch._dynamo.convert_frame", "torch._inductor.compile_fx"})
_DEBUGGERS = frozenset({"bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy"})
_DOING = {
    "start": "starting",
    "data": "waiting for data",
    "compute": "computing",
    "evaluation": "evaluating",
    "checkpoint": "writing a checkpoint",
}
_WAITS_FOR_OTHERS = ("/torch/distributed/", "/torch/nn/parallel/distributed.py", "/torch/autograd/graph.py")
"""Where the innermost frame of a rank lies that waits for the others in a collective operation or a backward pass."""
NO_STACK = "It did not write its stack.\n"
_NOT_THE_USERS = ("/site-packages/", "/lib/python3", f"{Path(__file__).parents[1]}/", "<frozen ")


@dataclass(frozen=True)
class Pulse:
    """What the training thread of a process does, and for how long it has made no progress."""

    step: int
    """Steps done."""
    account: str
    """What it does, as an account of the clock."""
    still_s: float
    limit_s: float
    """A longer `still_s` is a hang, if it is one on all ranks."""
    silent_s: float
    """So long there may be no news of this process while no other makes progress."""

    @property
    def doing(self) -> str:
        """What it does, in words."""
        return _DOING.get(self.account, self.account)


Process = tuple[str, int]
"""A node, and the number of a process there."""


@dataclass(frozen=True)
class Beat:
    """The pulse of a rank, as the driver receives it."""

    start: str
    """Tells the starts of the ranks apart, and sorts them."""
    rank: int
    world_size: int
    ip: str
    process: Process
    group: str
    thread: int
    pulse: Pulse
    has_ended: bool
    arrived: float
    """When it did, by the driver's monotonic clock."""

    def explain(self, silence: float | None, frames: list[str]) -> str:
        """The hang of the rank, in words."""
        doing = f"{self.pulse.doing} for {self.pulse.still_s:.0f} s"
        how = doing if silence is None else f"no sign of life for {silence:.0f} s, {self.pulse.doing}"
        name = f"rank {self.rank} on {self.ip} (process {self.process[1]})"
        return f"{name} hangs at step {self.pulse.step}: {how}{where(frames)}"


def silences_of_hang(ranks: Sequence[Beat], now: float) -> dict[int, float] | None:
    """If the ranks hang: seconds without news of those that are silent. None if they do not, or not all are known.

    They hang if none makes progress, each for longer than it may; or if there is no news of some, and the others wait.
    """
    # A rank that has failed or is done lets the others wait; Ray Train has noticed it.
    if not ranks or len(ranks) < ranks[0].world_size or any(beat.has_ended for beat in ranks):
        return None
    silences = {beat.rank: now - beat.arrived for beat in ranks if now - beat.arrived > beat.pulse.silent_s}
    heard = [beat.pulse for beat in ranks if beat.rank not in silences]
    all_stand_still = all(pulse.still_s > pulse.limit_s for pulse in heard)
    all_wait = bool(silences) and all(pulse.still_s > pulse.silent_s for pulse in heard)
    return silences if all_stand_still or all_wait else None


def culprits(ranks: Sequence[Beat], frames: Mapping[int, list[str]]) -> list[Beat]:
    """The ranks that the others wait for, as far as it shows: they do not wait themselves, or are steps behind."""
    busy = [beat for beat in ranks if not waits_for_others(frames.get(beat.rank, []))]
    behind = min(beat.pulse.step for beat in busy or ranks)
    return [beat for beat in busy or ranks if beat.pulse.step == behind]


class TrainingPulse:
    """The pulse of the thread that makes this object."""

    def __init__(self, clock: Clock, *, first_step: int, timeout_s: float) -> None:
        self.thread = threading.get_ident()
        self.interval_s = min(_MOST_BETWEEN_LOOKS_S, timeout_s / 8)
        """Between two looks."""
        self._clock, self._first_step = clock, first_step
        self._least_s, self._apart_s = timeout_s * _SHARE_OF_TIMEOUT, timeout_s * _TIMES_APART
        self._looked, self._awake_since = time.perf_counter(), 0.0

    @property
    def has_stepped(self) -> bool:
        """Whether the first two steps are done: until then a process may be silent for longer."""
        return self._clock.steps > 1

    def look(self) -> Pulse:
        """The pulse now; called every `interval_s` at least."""
        now, clock = time.perf_counter(), self._clock
        seconds = now - self._looked
        # This process was stopped, as by Ctrl-Z, or its machine was suspended: that time does not count.
        was_paused = seconds > 2 * self.interval_s + _LATE_S
        frame = sys._current_frames().get(self.thread)
        self._looked = now
        if was_paused:
            self._awake_since = min(now, max(self._awake_since, self._clock.since) + seconds)
        if _is_in(frame, _DEBUGGERS):
            self._awake_since = now
        account, steps = clock.account, clock.steps
        still_s = now - max(clock.since, self._awake_since)
        step_s = max(self._least_s, _TIMES_THE_LONGEST * clock.longest_s)
        # Only the second step shows how long one takes: the first also compiles.
        is_apart = not self.has_stepped or account not in ("data", "compute")
        if not is_apart and still_s > step_s:
            is_apart = _is_in(frame, _COMPILES)
        limit_s = max(step_s, self._apart_s) if is_apart else step_s
        return Pulse(self._first_step + steps, account, still_s, limit_s, silent_s=limit_s)


def _is_in(frame: FrameType | None, modules: frozenset[str]) -> bool:
    """Whether a thread is within one of these modules or packages."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name in modules or name.partition(".")[0] in modules:
            return True
        frame = frame.f_back
    return False


def waits_for_others(frames: list[str]) -> bool:
    """Whether a thread, of which these are the frames, waits for other ranks."""
    return bool(frames) and any(part in frames[0] for part in _WAITS_FOR_OTHERS)


def where(frames: list[str]) -> str:
    """The innermost frame in the user's own code, or where there is none the innermost of all; as `, in FRAME`."""
    own = [frame for frame in frames if not any(part in frame for part in _NOT_THE_USERS)]
    return f", in {(own or frames)[0]}" if frames else ""


def stacks_text(dumps: list[tuple[str, Dump]]) -> str:
    """The content of a file in logs/: the stacks of processes, each under its heading."""
    return "\n".join(
        f"{heading}, process {dump.pid}: {dump.title}\n\n{dump.text or NO_STACK}" for heading, dump in dumps
    )
