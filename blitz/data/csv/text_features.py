"""Free text in a table, as hashes of the pieces of its words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from blitz.data.csv.reading.index import CsvIndex
from blitz.data.csv.table import CsvTable
from blitz.data.order import Rows
from blitz.randomness import mix64

BUCKETS = 1 << 14
"""How many hashes there are."""
SIZES = (3, 4, 5)
"""Characters of a piece, as in fastText (Bojanowski et al. 2017), whose pieces also mark where words begin and end."""
MOST_PIECES = 512
"""Of a longer text the first of each size, in equal numbers, are seen."""

FACTOR = 0x100000001B3

Pieces = npt.NDArray[np.int32]


def pieces_of(text: str) -> Pieces:
    """Hashes from 1 to `BUCKETS` of the pieces of a text, of shape (at most MOST_PIECES,); in lower case."""
    words = " ".join(text.lower().split())
    letters = np.frombuffer(f" {words} ".encode("utf-32-le") if words else b"", np.uint32).astype(np.uint64)
    found = []
    for size in SIZES:
        count = min(len(letters) - size + 1, MOST_PIECES // len(SIZES))
        if count > 0:
            hashes = np.full(count, size, np.uint64)
            for offset in range(size):
                hashes = hashes * np.uint64(FACTOR) ^ letters[offset : offset + count]
            found.append((mix64(hashes) % np.uint64(BUCKETS)).astype(np.int32) + 1)
    return np.concatenate(found) if found else np.zeros(0, np.int32)


class TextRows:
    """The pieces of texts in rows of a CSV, all but those `without`; like `CsvTable` it pickles as a path."""

    def __init__(self, index: CsvIndex, columns: Sequence[str], without: Rows) -> None:
        self._columns = columns
        self._table = CsvTable(index, columns, without=without)

    def pieces(self, rows: Rows) -> Pieces:
        """Of shape (rows, columns, MOST_PIECES), 0 after the last; a missing text has none."""
        cells = self._table.__getitems__(rows)
        found = np.zeros((len(rows), len(self._columns), MOST_PIECES), np.int32)
        for column, name in enumerate(self._columns):
            texts: Any = cells[name]
            for row, text in enumerate(texts):
                pieces = pieces_of(text or "")
                found[row, column, : len(pieces)] = pieces
        return found
