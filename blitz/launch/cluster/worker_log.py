"""The output and the exception of each worker, in a file of the run: `logs/<start>-rank-<n>.log`."""

import io
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TextIO

import ray
import torch

from blitz.run_files.directory import RunDirectory
from blitz.training.world import World

_SECONDS_BETWEEN_UPLOADS = 10.0
_MAX_UPLOADED = 16_000_000
"""Characters of a log that are uploaded to an object store, which takes the whole log each time."""


@contextmanager
def collected(run: RunDirectory, world: World) -> Iterator[str]:
    """Within this context, what this rank prints and raises goes to its log file too.

    Gives the name of this start of the ranks, with which the names of its files begin.
    """
    # Rank 0's clock, so that the files of one start share a name.
    now = torch.tensor(int(time.time()) if world.leads else 0)
    start = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(int(world.sum(now))))
    log = _Log(run, f"logs/{start}-rank-{world.rank}.log")
    log.write(f"rank {world.rank} of {world.size} on {ray.util.get_node_ip_address()}, process {os.getpid()}\n")
    try:
        with redirect_stdout(_Tee(sys.stdout, log)), redirect_stderr(_Tee(sys.stderr, log)):
            yield start
    except BaseException:
        log.write(traceback.format_exc())
        raise
    finally:
        log.close()


def newest_log(run: RunDirectory, rank: int) -> str | None:
    """The path or URI of the log of a rank's last start."""
    names = [name for name in run.names("logs") if name.endswith(f"-rank-{rank}.log")]
    return str(RunDirectory.of(run.uri, f"logs/{max(names)}")) if names else None


class _Tee(io.TextIOBase):
    """Writes to two streams."""

    def __init__(self, stream: TextIO, log: "_Log") -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


class _Log(io.TextIOBase):
    """A file of the run: each write is visible at once, or in an object store some seconds later.

    A log that cannot be written does not end the run.
    """

    def __init__(self, run: RunDirectory, path: str) -> None:
        self._run, self._path = run, path
        self._text, self._uploaded, self._ends = io.StringIO(), 0, threading.Event()
        self._thread = None if run.appends else threading.Thread(target=self._upload_now_and_then, daemon=True)
        if self._thread is not None:
            self._thread.start()

    def write(self, text: str) -> int:
        if self._thread is None:
            with suppress(OSError):
                self._run.append(self._path, text.encode())
        elif self._text.tell() < _MAX_UPLOADED:
            self._text.write(text)
        return len(text)

    def close(self) -> None:
        if self._thread is not None:
            self._ends.set()
            self._thread.join()
        super().close()

    def _upload_now_and_then(self) -> None:
        while not self._ends.wait(_SECONDS_BETWEEN_UPLOADS if self._uploaded else 0.0):
            self._upload()
        self._upload()

    def _upload(self) -> None:
        text = self._text.getvalue()
        with suppress(OSError):
            if len(text) > self._uploaded:
                self._run.write(self._path, text.encode())
                self._uploaded = len(text)
