"""Reads metrics.jsonl piece by piece while it grows, also if it is rewound meanwhile."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from blitz.run_files.directory import RunDirectory
from blitz.trackers.tracker import Step

_PIECE_BYTES = 1 << 20


class StepReader:
    """The steps of a run in order, each as one dictionary of all its lines.

    A step is complete once a line of a later step follows, or once the caller knows that it is. When the file was
    rewound, because the run was resumed, the steps are returned again from the first one; the caller skips those that
    it has seen.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._offset, self._last_line = 0, b""
        self._pending: dict[str, Any] = {}

    def read(self, *, complete_to: int = 0) -> tuple[list[Step], bool]:
        """The complete steps of the next piece, and whether the file ends there.

        Args:
            complete_to: the last step that is complete.
        """
        piece, at_end = self._piece()
        steps = list(self._steps(piece))
        if at_end and self._pending and self._pending["step"] <= complete_to:
            steps.append(self._pending)
            self._pending = {}
        return steps, at_end

    def _steps(self, piece: bytes) -> Iterator[Step]:
        for line in piece.splitlines():
            # A line that was cut off is skipped.
            with suppress(json.JSONDecodeError):
                values = json.loads(line)
                if self._pending and values["step"] != self._pending["step"]:
                    yield self._pending
                    self._pending = {}
                self._pending |= {name: value for name, value in values.items() if value is not None}

    def _piece(self) -> tuple[bytes, bool]:
        """The next whole lines, and whether the file ends there."""
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
