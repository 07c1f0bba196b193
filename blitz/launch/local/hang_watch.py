"""A watchdog thread for a run in this process: it says where a run hangs, and keeps waiting."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from blitz.launch.hang import Pulse, TrainingPulse, stacks_text, where
from blitz.launch.stacks import can_dump_stacks, dump_stacks
from blitz.run_files.directory import RunDirectory
from blitz.training.display import Display

_GROUP = "this"
_SECONDS_BETWEEN_LOOKS = 0.2
"""While the run hangs."""
_SECONDS_TO_END = 10.0


@contextmanager
def hang_watch(run: RunDirectory, pulse: TrainingPulse, display: Display) -> Iterator[None]:
    """Within this context a hang of the thread that made `pulse` is reported, and added to the run's events."""
    can_dump_stacks(_GROUP)
    ends = threading.Event()
    thread = threading.Thread(target=_watch, args=(run, pulse, display, ends), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join(_SECONDS_TO_END)


def _watch(run: RunDirectory, pulse: TrainingPulse, display: Display, ends: threading.Event) -> None:
    hangs: Pulse | None = None
    while not ends.wait(pulse.interval_s if hangs is None else min(pulse.interval_s, _SECONDS_BETWEEN_LOOKS)):
        now = pulse.look()
        if now.still_s > now.limit_s:
            if hangs is None:
                _report(run, now, pulse.thread, display)
            hangs = now
        elif hangs is not None:
            _report_end(run, hangs, display)
            hangs = None
    if hangs is not None:
        _report_end(run, hangs, display)


def _report_end(run: RunDirectory, last: Pulse, display: Display) -> None:
    display.line(f"step {last.step}: no longer hangs, after {last.still_s:.0f} s")
    _add_event(run, "hang ended", last, account=last.account)


def _report(run: RunDirectory, now: Pulse, thread: int, display: Display) -> None:
    # A loader process may be what hangs: this one then waits for it.
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
    dumps = dump_stacks(_GROUP, only=frozenset(pids))
    own = next((dump.threads.get(thread, []) for dump in dumps if dump.pid == os.getpid()), [])
    log = f"logs/{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime())}-hang.txt"
    what = f"the run hangs at step {now.step}: {now.doing} for {now.still_s:.0f} s{where(own)}"
    display.line(f"{what}; the stack of each thread is in {run}/{log}; Ctrl-C ends it")
    headings = ["this process" if dump.pid == os.getpid() else "loader process" for dump in dumps]
    # Written last: the storage may be what hangs.
    with suppress(OSError):
        run.write(log, stacks_text(list(zip(headings, dumps, strict=True))).encode())
    _add_event(run, "hang", now, error=what, log=log)


def _add_event(run: RunDirectory, what: str, pulse: Pulse, **more: Any) -> None:
    seconds = {"time": round(time.time(), 3), "step": pulse.step, "hang_seconds": round(pulse.still_s, 3)}
    with suppress(OSError):
        run.add_event({"what": what, **seconds, **more})
