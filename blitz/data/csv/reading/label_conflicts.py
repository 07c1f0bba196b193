"""Images that a CSV lists several times with different labels."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

from blitz.data.csv.reading.bad_rows import faults_of
from blitz.data.csv.reading.csv_index import CsvIndex
from blitz.data.csv.reading.layout import LINE
from blitz.data.csv.reading.row_names import RowNames
from blitz.data.csv.reading.scan import missing
from blitz.randomness import mix64

Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def conflicting_labels(index: CsvIndex, image_column: str, label_columns: Sequence[str]) -> pyarrow.RecordBatch:
    """A fault for every row of an image that has another label on another line: the right one is unknown.

    Rows without a path or a label are left out. Hashes of paths and labels are compared first, so that memory holds
    some 50 bytes a row rather than all paths.
    """
    columns = [image_column, *label_columns, LINE]
    # Not memory-mapped: pages that are read once would count as memory of this process.
    hashed = [_hashed(batch, image_column, label_columns) for batch in index.batches(columns, mapped=False)]
    firsts = np.cumsum([0, *(each.rows for each in hashed)])
    rows = np.concatenate([first + each.indices for first, each in zip(firsts, hashed, strict=False)])
    images = np.concatenate([each.images for each in hashed])
    labels = np.concatenate([each.labels for each in hashed])
    hashed.clear()
    suspects = rows[_in_conflict(images, labels)]
    if not len(suspects):
        return faults_of(suspects, image_column, [], "", suspects)
    bounds = zip(firsts, *np.searchsorted(suspects, [firsts[:-1], firsts[1:]]).tolist(), strict=False)
    taken = [
        batch.take(pyarrow.array(suspects[start:end] - first))
        for batch, (first, start, end) in zip(index.batches(columns, mapped=False), bounds, strict=True)
        if start < end
    ]
    return _faults(pyarrow.Table.from_batches(taken), suspects, image_column, label_columns, index.names)


def _in_conflict(images: Hashes, labels: Hashes) -> Rows:
    """Indices, ascending, of images that occur with several labels."""
    order = np.argsort(images, kind="stable")
    images, labels = images[order], labels[order]
    # If labels of one image differ, so do two neighbouring ones.
    images_in_conflict = np.unique(images[1:][(images[1:] == images[:-1]) & (labels[1:] != labels[:-1])])
    changes = np.zeros(len(images) + 1, np.int8)
    changes[np.searchsorted(images, images_in_conflict)] += 1
    changes[np.searchsorted(images, images_in_conflict, side="right")] -= 1
    return np.sort(order[np.cumsum(changes[:-1], dtype=np.int8) > 0])


@dataclass(frozen=True)
class _Hashed:
    """A batch: the indices of rows that have a path and labels, and the hashes of these."""

    rows: int
    indices: Rows
    images: Hashes
    labels: Hashes


def _hashed(batch: pyarrow.RecordBatch, image_column: str, label_columns: Sequence[str]) -> _Hashed:
    present = pc.not_equal(batch[image_column], "").to_numpy(zero_copy_only=False)
    labels = np.zeros(len(batch), np.uint64)
    for name in label_columns:
        present &= ~missing(batch[name]).to_numpy(zero_copy_only=False)
        labels = mix64(labels ^ _bits(batch[name]))
    indices = np.flatnonzero(present)
    return _Hashed(len(batch), indices, text_hashes(batch[image_column])[indices], labels[indices])


def _faults(
    table: pyarrow.Table, rows: Rows, image_column: str, label_columns: Sequence[str], names: RowNames
) -> pyarrow.RecordBatch:
    lines = table[LINE].to_pylist()
    paths = table[image_column].to_pylist()
    labels = list(zip(*(table[name].to_pylist() for name in label_columns), strict=True))
    # The first line of each label of each image.
    first: defaultdict[str, dict[tuple[object, ...], int]] = defaultdict(dict)
    for path, label, line in zip(paths, labels, lines, strict=True):
        first[path].setdefault(label, line)
    indices, reasons = [], []
    for i, (path, label) in enumerate(zip(paths, labels, strict=True)):
        others = [line for other, line in first[path].items() if other != label]
        if others:
            indices.append(i)
            reasons.append(f"{names.beside(lines[i], others[0])} gives the same image another label")
    chosen = np.array(indices, np.int64)
    values = [paths[i] for i in indices]
    return faults_of(table[LINE].to_numpy()[chosen], image_column, values, reasons, rows[chosen])


def _bits(labels: pyarrow.Array) -> Hashes:
    if pyarrow.types.is_string(labels.type):
        return text_hashes(labels)
    values: npt.NDArray[Any] = labels.to_numpy(zero_copy_only=False)
    return values.view(np.uint64) if pyarrow.types.is_floating(labels.type) else values.astype(np.uint64)


def text_hashes(paths: pyarrow.StringArray) -> Hashes:
    """A hash of each text: the sum modulo 2^64 of its bytes, each times a random number for its position."""
    _, offsets, data = paths.buffers()
    ends = np.frombuffer(offsets, np.int32)[paths.offset : paths.offset + len(paths) + 1].astype(np.int64)
    lengths = np.diff(ends)
    hashes = np.zeros(len(paths), np.uint64)
    filled = lengths > 0
    if filled.any():
        letters = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
        starts = (ends[:-1] - ends[0])[filled]
        factors = mix64(np.arange(lengths.max(), dtype=np.uint64))
        positions = np.arange(len(letters)) - np.repeat(starts, lengths[filled])
        hashes[filled] = np.add.reduceat((letters + np.uint64(1)) * factors[positions], starts)
    return hashes
