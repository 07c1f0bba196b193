"""Which encoding a file of text is in, from all of its bytes, and what becomes of bytes that are not in it."""

import codecs
import re
from typing import Literal

import numpy as np

Encoding = Literal["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"]
Guess = Encoding | Literal["mixed"]
"""`mixed` is a file of which some characters are UTF-8, and more are not."""

HEAD_BYTES = 1 << 17

NOT_DECODED = re.compile("[\udc80-\udcff]")
"""What the error handler `surrogateescape` makes of a byte that is not of the encoding."""
REPLACEMENT = "\ufffd"
"""What stands in its place."""

_UNDEFINED_IN_CP1252 = b"\x81\x8d\x8f\x90\x9d"
_CONTROLS = bytes({*range(32)} - {0, *b"\t\n\v\f\r\x1a\x1b"})


class EncodingScan:
    """Tells a file's encoding from all of its bytes, handed over in order."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._valid = self._invalid = 0
        """Characters of several bytes, and bytes that are of none."""
        self._is_cp1252 = True
        self._start = b""

    def add(self, data: bytes) -> None:
        """Take note of the next bytes."""
        self._start = self._start or data[:HEAD_BYTES]
        if data.isascii() and not self._utf8.getstate()[0]:
            return
        self._count(self._utf8.decode(data))
        self._is_cp1252 = self._is_cp1252 and not any(byte in data for byte in _UNDEFINED_IN_CP1252)

    def encoding(self, *, whole: bool = True) -> Guess | None:
        """The encoding, or None for bytes that are no text; unless they are the `whole` file, a letter may be cut.

        A file with a byte-order mark, or with characters that are UTF-8 and hardly come about by chance, is UTF-8
        although some bytes are damaged: it would be wrong to read all others in another encoding.
        """
        if self._start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in self._start and not _has_stray_nul(self._start):
            return _utf16_without_bom(self._start)
        if whole:
            self._count(self._utf8.decode(b"", final=True))
        if self._start.startswith(codecs.BOM_UTF8):
            return "utf-8-sig"
        if self._valid >= self._invalid:
            return "utf-8"
        if self._valid:
            return "mixed"
        return "cp1252" if self._is_cp1252 else "latin-1"

    def _count(self, text: str) -> None:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        invalid = np.count_nonzero((points >= 0xDC80) & (points <= 0xDCFF))
        self._invalid += int(invalid)
        self._valid += int(np.count_nonzero(points > 0x7F) - invalid)


def _has_stray_nul(start: bytes) -> bool:
    """Whether a NUL here and there is all that keeps bytes from being text."""
    lines = start.count(b"\n") + start.count(b"\r")
    return start.count(b"\0") <= lines and not any(byte in _CONTROLS for byte in start)


def _utf16_without_bom(start: bytes) -> Encoding | None:
    """ASCII characters, of which every text has some, have their zero byte on one side."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if odd > 0.2 * len(start) and even == 0:
        return "utf-16-le"
    return "utf-16-be" if even > 0.2 * len(start) and odd == 0 else None
