"""The Python stacks of processes that hang, also of those that hold the GIL, are stopped, or wait for a lock for ever.

A process that `can_dump_stacks` writes the stack of each of its threads into memory when it gets SIGUSR2: in C, without
the GIL. Another process of the same user reads it there. A process that is stopped does so once it gets SIGCONT.
Needs Linux; elsewhere no stack is found. Imports neither torch nor ray: it runs in tasks that must start fast.
"""

import faulthandler
import functools
import os
import re
import signal
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

_SIGNAL = signal.SIGUSR2
_NAME = "blitz-stacks"
_SECONDS_TO_DUMP = 3.0
_SECONDS_OF_SILENCE = 0.2
"""A dump is complete once nothing was added for so long."""
_POLL_S = 0.02


@functools.cache
def can_dump_stacks(group: str) -> None:
    """Let other processes read this one's stacks from now on, as one of `group`; its forks too.

    Unless the user's own code handles SIGUSR2.
    """
    is_free = signal.getsignal(_SIGNAL) == signal.SIG_DFL
    if is_free and hasattr(os, "memfd_create"):
        faulthandler.register(_SIGNAL, file=os.memfd_create(f"{_NAME}-{group}"), all_threads=True)


@dataclass(frozen=True)
class Dump:
    """The stacks of one process."""

    pid: int
    title: str
    """Its command line, which Ray sets to what it does."""
    text: str
    """As faulthandler writes them; empty if it wrote none."""
    traced: bool
    """Whether a debugger is attached."""

    @property
    def threads(self) -> dict[int, list[str]]:
        """By thread identifier its frames, the innermost first, as `file.py:12 in name`."""
        found = {}
        for part in re.split(r"\n(?=Thread |Current thread )", self.text):
            head, *lines = part.strip().splitlines() or [""]
            if ident := re.match(r"(?:Current thread|Thread) 0x([0-9a-f]+)", head):
                frames = [re.sub(r'^\s*File "(.*)", line (\d+) in (.*)$', r"\1:\2 in \3", line) for line in lines]
                found[int(ident[1], 16)] = frames
        return found


def dump_stacks(group: str, only: frozenset[int] | None = None) -> list[Dump]:
    """The stacks of all processes of `group` on this machine, or of those with these numbers.

    Stopped processes run again.
    """
    memory = {pid: file for pid in _pids() if only is None or pid in only if (file := _file_of(pid, group))}
    forks: dict[int, list[int]] = {}
    for pid, file in memory.items():
        # A process and its forks share their memory, and dump into it one after the other.
        forks.setdefault(_inode(file), []).append(pid)
    dumps: list[Dump] = []
    while forks:
        dumps += _dumped({(pid := pids.pop(0)): memory[pid] for pids in forks.values()})
        forks = {inode: pids for inode, pids in forks.items() if pids}
    return dumps


def _dumped(memory: Mapping[int, str]) -> list[Dump]:
    before = {pid: _size(file) for pid, file in memory.items()}
    for pid in memory:
        with suppress(OSError):
            # One that has another handler by now, or none, could be ended by the signal.
            if _catches(pid):
                os.kill(pid, _SIGNAL)
            os.kill(pid, signal.SIGCONT)
    end, quiet, last = time.monotonic() + _SECONDS_TO_DUMP, time.monotonic(), before
    while time.monotonic() < end:
        time.sleep(_POLL_S)
        sizes = {pid: _size(file) for pid, file in memory.items()}
        if sizes != last:
            quiet, last = time.monotonic(), sizes
        elif time.monotonic() - quiet > _SECONDS_OF_SILENCE and all(sizes[pid] > before[pid] for pid in memory):
            break
    return [Dump(pid, _title(pid), _read(file, before[pid]), _traced(pid)) for pid, file in memory.items()]


def kill(group: str, pids: Collection[int]) -> list[Dump]:
    """Kill those of the processes that are of `group` on this machine; returns none of their stacks."""
    for pid in pids:
        with suppress(OSError):
            # Its number may have passed to another process.
            if _file_of(pid, group):
                os.kill(pid, signal.SIGKILL)
    return []


def created_at() -> float:
    """When this process was created, in seconds since 1970; where that is not known, now."""
    with suppress(OSError):
        with open("/proc/self/stat", encoding="utf-8") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - age
    return time.time()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()] if os.path.isdir("/proc") else []


def _file_of(pid: int, group: str) -> str | None:
    """The path of the memory that a process of `group` dumps into; None for any other, and for other users'."""
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        paths = (f"{folder}/{name}" for name in os.listdir(folder))
        return next((path for path in paths if _leads_to(path, f"/memfd:{_NAME}-{group} (deleted)")), None)
    return None


def _leads_to(path: str, target: str) -> bool:
    with suppress(OSError):
        return os.readlink(path) == target
    return False


def _inode(file: str) -> int:
    with suppress(OSError):
        return os.stat(file).st_ino
    return 0


def _size(file: str) -> int:
    with suppress(OSError):
        return os.stat(file).st_size
    return 0


def _read(file: str, start: int) -> str:
    with suppress(OSError), open(file, "rb") as stream:
        stream.seek(start)
        return stream.read().decode(errors="replace")
    return ""


def _status(pid: int) -> dict[str, str]:
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {}


def _catches(pid: int) -> bool:
    return bool(int(_status(pid).get("SigCgt", "0"), 16) >> (_SIGNAL - 1) & 1)


def _traced(pid: int) -> bool:
    return _status(pid).get("TracerPid", "0").strip() not in ("", "0")


def _title(pid: int) -> str:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
