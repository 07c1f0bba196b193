"""Reads metrics.jsonl while it grows: a piece at a time, however long it is, also where it is rewound meanwhile."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from blitz.run_files.directory import RunDirectory
from blitz.trackers.tracker import Step

_PIECE_BYTES = 1 << 20


class StepReader:
    """The steps of a run in their order, each as one dictionary of all its lines.

    A step is complete once a line of a later one follows, or once the caller knows that nothing more is written about
    it. After the file was rewound, as where a run is resumed, the steps come again from the first one: whoever reads
    them skips those that it has seen.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._offset, self._last_line = 0, b""
        self._pending: dict[str, Any] = {}

    def read(self, *, complete_to: int = 0) -> tuple[list[Step], bool]:
        """The complete steps of the next piece, and whether the file ends there.

        Args:
            complete_to: the last step about which nothing more is written.
        """
        piece, at_end = self._piece()
        steps = list(self._steps(piece))
        if at_end and self._pending and self._pending["step"] <= complete_to:
            steps.append(self._pending)
            self._pending = {}
        return steps, at_end

    def _steps(self, piece: bytes) -> Iterator[Step]:
        for line in piece.splitlines():
            # A torn line says nothing.
            with suppress(json.JSONDecodeError):
                values = json.loads(line)
                if self._pending and values["step"] != self._pending["step"]:
                    yield self._pending
                    self._pending = {}
                self._pending |= {name: value for name, value in values.items() if value is not None}

    def _piece(self) -> tuple[bytes, bool]:
        """Whole lines that follow those that were read, and whether none are left."""
        try:
            source = self._run.open_file("metrics.jsonl")
        except FileNotFoundError:
            return b"", True
        with source as file:
            size = file.size()
            seen = self._offset - len(self._last_line)
            if size < self._offset or file.read_at(len(self._last_line), seen) != self._last_line:
                self._offset, self._last_line, self._pending = 0, b"", {}
            length = _PIECE_BYTES
            while True:
                piece = file.read_at(min(length, size - self._offset), self._offset)
                whole, newline, _ = piece.rpartition(b"\n")
                if newline or self._offset + len(piece) >= size:
                    break
                # A line that is longer than a piece.
                length *= 2
        at_end = self._offset + len(piece) >= size
        if whole:
            self._last_line = whole.rpartition(b"\n")[2] + b"\n"
            self._offset += len(whole) + 1
        return whole, at_end
