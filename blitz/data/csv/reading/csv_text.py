"""A CSV as a file for pyarrow: decompressed, in UTF-8, from the line below the header on, with its quotes checked."""

import codecs
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow

from blitz.data.csv.reading.compressed import Stream
from blitz.data.csv.reading.dialect import Dialect
from blitz.data.csv.reading.quotes import QuoteScan

_BLOCK_BYTES = 1 << 20
_LINE_END = re.compile(rb"\r\n|\r|\n")


class CsvText(io.RawIOBase):
    """A file for `pyarrow.csv.open_csv`; lines to leave out are empty in it, which keeps line numbers.

    With `checked`, bytes that are not of the dialect's encoding raise UnicodeDecodeError; else pyarrow finds them.
    """

    def __init__(self, stream: Stream, dialect: Dialect, *, checked: bool) -> None:
        super().__init__()
        self.has_nul = False
        """Whether a NUL was read so far."""
        self.scan = QuoteScan(dialect.delimiter, dialect.quote, line=dialect.header_lines + 1)
        self.apostrophes: QuoteScan | None = None
        """Scans single quotes, as long as those could be the file's quotes."""
        if dialect.quote == '"' and dialect.delimiter != "'":
            self.apostrophes = QuoteScan(dialect.delimiter, "'", line=dialect.header_lines + 1, always_loop=True)
        self._stream, self._dialect = stream, dialect
        self._decoder: codecs.IncrementalDecoder | None = None
        if checked or dialect.codec != "utf-8":
            self._decoder = codecs.getincrementaldecoder(dialect.codec)()
        self._header_lines = dialect.header_lines
        self._last_skipped = max(dialect.skip_lines, default=0)
        self._comment = dialect.comment.encode() if dialect.comment else None
        self._held = b""
        self._ready: list[bytes] = []
        self._bytes_ready = 0
        self._began = self._ended = False

    def readable(self) -> bool:
        """Always true."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes, unless fewer are left, because pyarrow treats a shorter read as a whole block."""
        while not self._ended and not 0 <= size <= self._bytes_ready:
            data = self._stream.read(_BLOCK_BYTES)
            self._ended = not data
            text = self._below_header(self._decoded(data))
            self._look_at(text)
            self._ready.append(text)
            self._bytes_ready += len(text)
            if self._ended:
                self.scan.finish()
                if self.apostrophes is not None:
                    self.apostrophes.finish()
        ready = b"".join(self._ready)
        text, rest = (ready, b"") if size < 0 else (ready[:size], ready[size:])
        self._ready, self._bytes_ready = [rest], len(rest)
        return text

    def take_strays(self, before_line: int | None) -> list[int]:
        """Lines of cells with misplaced quotes, ascending: those before a line, or all that are left."""
        strays = self.scan.strays
        count = len(strays) if before_line is None else sum(line < before_line for line in strays)
        # Deleted in place, because another thread may append meanwhile.
        taken = strays[:count]
        del strays[:count]
        return taken

    def _decoded(self, data: bytes) -> bytes:
        text = self._decoder.decode(data, not data).encode() if self._decoder is not None else data
        if not self._began and text:
            self._began, text = True, text.removeprefix(codecs.BOM_UTF8)
        return text

    def _below_header(self, data: bytes) -> bytes:
        if self._header_lines:
            data = self._held + data
            self._held = b""
            while self._header_lines:
                end = _LINE_END.search(data)
                if end is None or (end.end() == len(data) and not self._ended):
                    # A line, or its end, may continue in the next bytes.
                    self._held = data
                    return b""
                data = data[end.end() :]
                self._header_lines -= 1
        if self._comment is not None or self.scan.line <= self._last_skipped:
            return self._without_lines(data)
        data, self._held = self._held + data, b""
        self.scan.add(data)
        return data

    def _without_lines(self, data: bytes) -> bytes:
        lines = (self._held + data).splitlines(keepends=True)
        self._held = b""
        if lines and not self._ended and not lines[-1].endswith(b"\n"):
            self._held = lines.pop()
        kept = []
        for line in lines:
            ends = line.endswith((b"\n", b"\r"))
            comment = self._comment is not None and not self.scan.inside and line.startswith(self._comment)
            if comment or self.scan.line in self._dialect.skip_lines:
                end = _LINE_END.search(line)
                line = end[0] if end is not None and ends else b""
            self.scan.add(line, ends_row=ends)
            kept.append(line)
        return b"".join(kept)

    def _look_at(self, text: bytes) -> None:
        self.has_nul = self.has_nul or b"\0" in text
        if self.apostrophes is not None:
            self.apostrophes.add(text)
            if self.apostrophes.strays:
                self.apostrophes = None


def read_ahead(batches: Iterator[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
    """The same batches; the next one is parsed while one is used."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch
