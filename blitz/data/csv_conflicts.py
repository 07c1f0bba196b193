"""Images that a CSV lists more than once, with different labels."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

from blitz.data.csv_bad_rows import faults_of
from blitz.data.csv_pass import LINE
from blitz.randomness import mix64


def conflicting_labels(index: pyarrow.Table, image_column: str, label_columns: Sequence[str]) -> pyarrow.RecordBatch:
    """A fault for every row of an image that has another label on another line: which is right cannot be known.

    Rows without a path or a label are left out. Paths are compared by their hashes first, so that memory holds 8 bytes
    a row rather than all paths.
    """
    labels = [index[name].to_numpy() for name in label_columns]
    present = pc.not_equal(index[image_column], "").to_numpy()
    for label in labels:
        present &= (
            (label != -1) if label.dtype == np.int32 else ~np.isnan(label) if label.dtype == float else label != ""
        )
    rows = np.flatnonzero(present)
    hashes = np.concatenate([_hashes(paths) for paths in index[image_column].chunks])[rows]
    order = np.argsort(hashes, kind="stable")
    rows, hashes = rows[order], hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(rows) else rows
    sizes = np.diff(starts, append=len(rows))
    differs = np.zeros(len(rows), bool)
    for label in labels:
        differs |= label[rows] != np.repeat(label[rows[starts]], sizes)
    suspects = np.sort(rows[np.repeat(np.logical_or.reduceat(differs, starts), sizes)]) if differs.any() else rows[:0]
    return _faults(index.take(pyarrow.array(suspects)), suspects, image_column, label_columns)


def _faults(
    table: pyarrow.Table, rows: npt.NDArray[np.int64], image_column: str, label_columns: Sequence[str]
) -> pyarrow.RecordBatch:
    lines = table[LINE].to_pylist()
    paths = table[image_column].to_pylist()
    labels = list(zip(*(table[name].to_pylist() for name in label_columns), strict=True))
    # The first line of each label of each image.
    first: defaultdict[str, dict[tuple[object, ...], int]] = defaultdict(dict)
    for path, label, line in zip(paths, labels, lines, strict=True):
        first[path].setdefault(label, line)
    places, reasons = [], []
    for place, (path, label) in enumerate(zip(paths, labels, strict=True)):
        others = [line for other, line in first[path].items() if other != label]
        if others:
            places.append(place)
            reasons.append(f"line {others[0]} gives the same image another label")
    chosen = np.array(places, np.int64)
    values = [paths[place] for place in places]
    return faults_of(table[LINE].to_numpy()[chosen], image_column, values, reasons, rows[chosen])


def _hashes(paths: pyarrow.StringArray) -> npt.NDArray[np.uint64]:
    """A hash of each path: the sum modulo 2^64 of its bytes, each times a random number of its place."""
    _, offsets, data = paths.buffers()
    ends = np.frombuffer(offsets, np.int32)[paths.offset : paths.offset + len(paths) + 1].astype(np.int64)
    lengths = np.diff(ends)
    hashes = np.zeros(len(paths), np.uint64)
    filled = lengths > 0
    if filled.any():
        letters = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
        starts = (ends[:-1] - ends[0])[filled]
        factors = mix64(np.arange(lengths.max(), dtype=np.uint64))
        places = np.arange(len(letters)) - np.repeat(starts, lengths[filled])
        hashes[filled] = np.add.reduceat((letters + np.uint64(1)) * factors[places], starts)
    return hashes
