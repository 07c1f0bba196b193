"""Finding misplaced quotes in a CSV, which pyarrow does not report.

A quote opens a cell only at its start, is doubled within, and a closing quote is followed by a delimiter or the end of
the row (RFC 4180). A quote within an unquoted cell is a character like any other.
"""

import numpy as np
import numpy.typing as npt

# Below this a loop over the quotes is faster than arrays.
_FEW_BYTES = 4096
_NEWLINE = ord("\n")


def newlines(data: bytes) -> int:
    r"""Line breaks among bytes: \n, \r\n and \r."""
    # If there are many, numpy counts five times as fast as `bytes.count`.
    feeds = int(np.count_nonzero(np.frombuffer(data, np.uint8) == _NEWLINE))
    return feeds + data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else feeds


class QuoteScan:
    """Scans the quotes in UTF-8 bytes that are added in order; `line` is that of the first byte."""

    def __init__(self, delimiter: str, quote: str, *, line: int = 1, always_loop: bool = False) -> None:
        self.line = line
        self.strays: list[int] = []
        """For each cell with more after its closing quote: the line of that quote."""
        self.open_line: int | None = None
        """Within quotes, one of the lines of the cell that they opened; else None."""
        self.needed = self.needless = 0
        """With `always_loop`: quoted cells that need their quotes, and others."""
        self._quote = quote.encode()
        self._always_loop = always_loop
        self._ends = frozenset(delimiter.encode() + b"\r\n")
        self._beside = np.zeros(256, bool)
        self._beside[[*self._ends, *self._quote]] = True
        # With a single column the delimiter is not known.
        self._special = (delimiter.encode(), *(b",", b";", b"\t", b"|"), b"\r", b"\n")
        self._doubled = self._special_within = False
        self._is_empty = True
        self._before = _NEWLINE
        self._held = b""

    @property
    def inside(self) -> bool:
        """Whether the last byte is within quotes."""
        return self.open_line is not None

    def add(self, data: bytes, *, ends_row: bool = False) -> None:
        """Add the next bytes; with `ends_row` they end with a complete line break."""
        data = self._held + data if self._held else data
        # The meaning of a quote or a carriage return depends on the byte after it.
        body = data if ends_row else data.rstrip(self._quote + b"\r")
        self._held = data[len(body) :]
        self._scan(body)

    def finish(self) -> None:
        """Mark the end of the bytes."""
        data, self._held = self._held, b""
        self._scan(data)

    def _scan(self, data: bytes) -> None:
        """Scan bytes that are not followed by a quote."""
        if not data:
            return
        if self._quote in data:
            if self._always_loop or len(data) < _FEW_BYTES or not self._alternating(data):
                self._loop(data)
        elif self._always_loop and self.inside:
            self._look_within(data)
        self.line += newlines(data)
        self._before = data[-1]

    def _alternating(self, data: bytes) -> bool:
        """Whether the quotes alternately open and close cells, a doubled one doing both; else nothing changes."""
        bytes_: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(bytes_ == self._quote[0])
        opening, closing = (quotes[1::2], quotes[::2]) if self.inside else (quotes[::2], quotes[1::2])
        # The byte before the first is that read before; after the last comes no quote.
        if len(opening) and opening[0] == 0:
            if self._before not in self._ends:
                return False
            opening = opening[1:]
        if len(closing) and closing[-1] == len(data) - 1:
            closing = closing[:-1]
        # A quote right before an opening one was a closing one: the two are a doubled quote.
        if not (self._beside[bytes_[opening - 1]].all() and self._beside[bytes_[closing + 1]].all()):
            return False
        if (len(quotes) + self.inside) % 2:
            self.open_line = self.line + newlines(data[: quotes[-1]])
        else:
            self.open_line = None
        return True

    def _loop(self, data: bytes) -> None:
        quote, inside = self._quote[0], self.inside
        # The start of the open cell.
        begin, at = 0, data.find(self._quote)
        opened_here = False
        line, counted = self.line, 0
        while at >= 0:
            next_at = at + 1
            following = data[next_at] if next_at < len(data) else _NEWLINE
            if not inside:
                if (data[at - 1] if at else self._before) in self._ends:
                    inside = opened_here = True
                    self._doubled = self._special_within = False
                    self._is_empty = True
                    begin = next_at
            elif following == quote:
                self._doubled = True
                next_at += 1
            else:
                if self._always_loop:
                    self._look_within(data[begin:at])
                    # A row of one empty cell would be a blank line.
                    needed = self._doubled or self._special_within or self._is_empty
                    self.needed += needed
                    self.needless += not needed
                if following not in self._ends:
                    line, counted = line + newlines(data[counted:at]), at
                    self.strays.append(line)
                inside = False
            at = data.find(self._quote, next_at)
        if not inside:
            self.open_line = None
            return
        if opened_here:
            self.open_line = line + newlines(data[counted:begin])
        if self._always_loop:
            self._look_within(data[begin:])

    def _look_within(self, data: bytes) -> None:
        self._is_empty = self._is_empty and not data
        self._special_within = self._special_within or any(mark in data for mark in self._special)
