"""Blocks fetched by worker processes of this machine, in order.

Columns come back through memory that is shared once and reused. `DataLoader` allocates new shared memory for every
batch, and paging that in costs a tenth of decoding images of 224 pixels.
"""

import math
import mmap
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blitz.data.arrays import Columns, new_columns_by
from blitz.data.plan import Block, Chunk
from blitz.errors import RunFailed

AHEAD = 2
"""Blocks that each process has been requested to fetch and that are not consumed yet."""

Fetch = Callable[[Chunk], Block]

# Forked: a data set in memory is not copied, and torch, which takes seconds to import, is loaded already.
_fork = multiprocessing.get_context("fork")
_ALIGNED = 64


def fetched_by_processes(fetch: Fetch, chunks: Iterable[Chunk], *, processes: int, block_bytes: int) -> Iterator[Block]:
    """The block of each chunk. Its columns are overwritten once the next block but one is requested.

    `block_bytes` is the size of a block's columns; larger ones are pickled, which is slower. The processes end with the
    iterator.

    Raises:
        RunFailed: if one of the processes dies.
        Exception: what `fetch` raises.
    """
    # Beside the requested blocks, the one being consumed and the one before it.
    slots = [_Slot(block_bytes) for _ in range(processes * AHEAD + 2)]
    workers: list[_Worker] = []
    try:
        for _ in range(processes):
            workers.append(_Worker(fetch, slots))  # noqa: PERF401  (killed below, even if the next fails to start)
        requested: deque[tuple[_Worker, int]] = deque()
        for number, chunk in enumerate(chunks):
            if len(requested) == processes * AHEAD:
                yield _block(requested, slots)
            worker, slot = workers[number % processes], number % len(slots)
            worker.request(chunk, slot)
            requested.append((worker, slot))
        while requested:
            yield _block(requested, slots)
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.connection.close()


def _block(requested: "deque[tuple[_Worker, int]]", slots: "list[_Slot]") -> Block:
    worker, slot = requested.popleft()
    block, layout = worker.answer()
    return replace(block, columns={**block.columns, **slots[slot].get(layout)})


Layout = dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]]
"""By column name: its first byte in a slot, dtype and shape."""


class _Slot:
    """Memory for the columns of one block, shared with processes that are forked later.

    Anonymous memory rather than /dev/shm, which is small in many containers.
    """

    def __init__(self, size: int) -> None:
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8)
        self._end = 0

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Within this context new columns are allocated here while there is room."""
        self._end = 0
        with new_columns_by(self._new):
            yield

    def put(self, columns: Columns) -> Layout:
        """Copy the columns here that lie elsewhere while there is room; returns where those here lie."""
        start = self._bytes.ctypes.data
        layout: Layout = {
            name: (column.ctypes.data - start, column.dtype, column.shape)
            for name, column in columns.items()
            if column.flags.c_contiguous and 0 <= column.ctypes.data - start < len(self._bytes)
        }
        if not layout:
            # The columns allocated here are not those of the block: a short batch is padded by a copy.
            self._end = 0
        for name, column in columns.items():
            if name not in layout and self._has_room(column.nbytes):
                layout[name] = self._end, column.dtype, column.shape
                np.copyto(self._new(column.shape, column.dtype), column)
        return layout

    def get(self, layout: Layout) -> Columns:
        """The columns that were put here, without a copy."""
        return {name: self._view(*where) for name, where in layout.items()}

    def _has_room(self, size: int) -> bool:
        return self._end + size <= len(self._bytes)

    def _new(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if not self._has_room(size):
            return np.empty(shape, dtype)
        column = self._view(self._end, dtype, shape)
        self._end += -(-size // _ALIGNED) * _ALIGNED
        return column

    def _view(self, first: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        return np.ndarray(shape, dtype, self._bytes.data, first)


class _Worker:
    """A process that fetches the requested chunks, one after the other."""

    def __init__(self, fetch: Fetch, slots: list[_Slot]) -> None:
        self.connection, theirs = _fork.Pipe()
        self.process = _fork.Process(target=_serve, args=(fetch, slots, theirs, self.connection), daemon=True)
        self.process.start()
        # Only the worker holds its end now, so that its death ends the connection and wakes `answer`.
        theirs.close()

    def request(self, chunk: Chunk, slot: int) -> None:
        """Request a chunk, to be fetched into a slot."""
        try:
            self.connection.send((chunk, slot))
        except OSError as error:
            raise self._died() from error

    def answer(self) -> tuple[Block, Layout]:
        """The block of the oldest open request, and which of its columns are in the slot.

        Raises:
            RunFailed: if the process has died.
        """
        try:
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(answer, BaseException):
            raise answer
        block, layout = answer
        return block, layout

    def _died(self) -> RunFailed:
        self.process.join()
        code = self.process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        why = ", as a system without free memory does;" if code == -signal.SIGKILL else ";"
        return RunFailed(f"a loader process {how}{why} fewer may help, and the same command resumes the run")


def _serve(fetch: Fetch, slots: list[_Slot], connection: Connection, theirs: Connection) -> None:
    """Answer requests until the other end of the connection closes."""
    # Otherwise this copy of the parent's end would outlive the parent, and `recv` would wait for ever.
    theirs.close()
    # Ctrl-C and SIGTERM go to all processes of a terminal or a job but are for the parent, which ends this process once
    # it has saved.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The other cores have processes of their own.
    torch.set_num_threads(1)
    while True:
        try:
            chunk, slot = connection.recv()
        except (EOFError, OSError):
            return
        try:
            with slots[slot].filled():
                block = fetch(chunk)
            layout = slots[slot].put(block.columns)
            others = {name: column for name, column in block.columns.items() if name not in layout}
            answer: Any = replace(block, columns=others), layout
        except Exception as error:
            answer = ExceptionWithTraceback(error, error.__traceback__)
        try:
            connection.send(answer)
        except OSError:
            return
        except Exception:
            # An exception that cannot be pickled; its trace can.
            connection.send(RuntimeError(traceback.format_exc()))
