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


@contextmanager
def hang_watch(run: RunDirectory, pulse: TrainingPulse, display: Display) -> Iterator[None]:
    """Within this context a hang of the thread that made `pulse` is reported, and added to the run's events."""
    can_dump_stacks(_GROUP)
    ends = threading.Event()
    threading.Thread(target=_watch, args=(run, pulse, display, ends), daemon=True).start()
    try:
        yield
    finally:
        ends.set()


def _watch(run: RunDirectory, pulse: TrainingPulse, display: Display, ends: threading.Event) -> None:
    hangs: Pulse | None = None
    while not ends.wait(pulse.interval_s):
        now = pulse.look()
        if hangs is None and now.still_s > now.limit_s:
            hangs = now
            _report(run, now, pulse.thread, display)
        elif hangs is not None and now.still_s > now.limit_s:
            hangs = now
        elif hangs is not None:
            display.line(f"step {hangs.step}: the run continues, after {hangs.still_s:.0f} s")
            _add_event(run, "hang ended", hangs, account=hangs.account)
            hangs = None


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
