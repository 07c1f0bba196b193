"""Which rows of a CSV are trained on, evaluated on and tested on: a function of its content and the seed."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from blitz.data.csv.dates import DateEvidence, seconds_of
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.order import Rows, shuffled_rows
from blitz.data.plan import Split
from blitz.errors import DataError, require
from blitz.randomness import Use, key_for

Mask = npt.NDArray[np.bool_]

_BY_COLUMN = ("group", "time")


@dataclass(frozen=True)
class Parts:
    """Which rows of an index are in each part, of shape (rows of the index,); a row is in one part at most."""

    train: Mask
    val: Mask
    test: Mask

    def of(self, split: Split) -> Mask:
        """The rows of a split."""
        masks: dict[Split, Mask] = {"train": self.train, "val": self.val, "test": self.test}
        return masks[split]

    @property
    def labeled(self) -> Mask:
        """The rows of all parts."""
        return self.train | self.val | self.test


@dataclass(frozen=True)
class SplitBy:
    """How rows are divided, as set by `--data.split`, and by which column, if any."""

    kind: str
    column: str = ""

    @classmethod
    def parsed(cls, text: str) -> "SplitBy":
        """Parse the text of the flag.

        Raises:
            UserError: if it names no way to split.
        """
        kind, _, column = text.partition(":")
        ways = "auto, random, stratified, group:COLUMN or time:COLUMN"
        known = kind in _BY_COLUMN if column else text in ("auto", "random", "stratified")
        require(known, f"--data.split is {text!r}; it must be {ways}")
        return cls(kind, column)

    def __str__(self) -> str:
        return f"{self.kind}:{self.column}" if self.column else self.kind


def split_rows(
    index: CsvIndex,
    rows: Rows,
    by: SplitBy,
    *,
    val: float | None,
    test: float | None,
    seed: int,
    classes: str | None = None,
) -> Parts:
    """Divide `rows` of the index, ascending; `val` and `test` are shares of them, and the others are trained on.

    The rows of the test part do not depend on the share to evaluate on.

    Args:
        classes: the column of classes, if one is to be learned.

    Raises:
        DataError: if the column to split by is not there, or is empty in some rows.
        UserError: if a part would be empty, or there are no classes to stratify by.
    """
    counts = {"val": _count(index, rows, "val", val), "test": _count(index, rows, "test", test)}
    wanted = " and ".join(f"--data.{name}-fraction {share}" for name, share in (("val", val), ("test", test)) if share)
    require(
        sum(counts.values()) < len(rows) or not wanted,
        f"{wanted} of the {len(rows)} rows of {index.csv} leave none to train on",
    )
    if not wanted:
        numbers: dict[str, Rows] = {"val": rows[:0], "test": rows[:0]}
    elif by.kind == "group":
        numbers = _by_group(index, rows, by.column, counts, seed)
    elif by.kind == "time":
        numbers = _by_time(index, rows, by.column, counts)
    elif by.kind == "stratified" or (by.kind == "auto" and classes is not None):
        require(classes is not None, f"--data.split stratified: {index.csv} is not learned as classes; use random")
        assert classes is not None
        numbers = _stratified(rows, _keys(index, classes)[rows], counts, seed)
    else:
        order = rows[_permutation(len(rows), seed)]
        numbers = {"val": order[: counts["val"]], "test": order[len(order) - counts["test"] :]}
    masks = {"train": np.zeros(index.rows, bool), "val": np.zeros(index.rows, bool), "test": np.zeros(index.rows, bool)}
    masks["train"][rows] = True
    for name, taken in numbers.items():
        masks[name][taken] = True
        masks["train"][taken] = False
        require(
            bool(len(taken)) or not counts[name],
            f"--data.split {by} leaves no rows for --data.{name}-fraction of {index.csv}; "
            "raise it, or split in another way",
        )
    require(bool(masks["train"].any()) or not wanted, f"{wanted} of {index.csv} leave no row to train on")
    return Parts(**masks)


def fold_rows(
    index: CsvIndex, rows: Rows, by: SplitBy, *, folds: int, seed: int, classes: str | None = None
) -> npt.NDArray[np.int64]:
    """The fold of each row of the index, below `folds`, of shape (rows of the index,); -1 for others than `rows`.

    Folds are equally large to one row, each class has its share of each to one row, and groups are not divided.

    Raises:
        DataError: if the column to split by is not there, or is empty in some rows.
        UserError: if there are fewer rows or groups than folds, or rows are split by time.
    """
    require(by.kind != "time", f"--data.folds does not go with --data.split {by}: folds have no order")
    require(len(rows) >= folds, f"--data.folds {folds}: {index.csv} has {len(rows)} rows to divide")
    found = np.full(index.rows, -1)
    if by.kind == "group":
        _require_all(index, rows, by.column)
        _, first, group_of = np.unique(_keys(index, by.column)[rows], return_index=True, return_inverse=True)
        require(len(first) >= folds, f"--data.folds {folds}: column '{by.column}' has {len(first)} groups")
        order = np.argsort(first)[_permutation(len(first), seed)]
        sizes, fold_of, filled = np.bincount(group_of), np.zeros(len(first), np.int64), np.zeros(folds, np.int64)
        # The largest group first, and each into the fold that has the fewest rows.
        for group in order[np.argsort(-sizes[order], kind="stable")]:
            fold_of[group] = int(filled.argmin())
            filled[fold_of[group]] += sizes[group]
        found[rows] = fold_of[group_of]
        return found
    order = _permutation(len(rows), seed)
    if by.kind != "random" and classes is not None:
        order = order[np.argsort(_keys(index, classes)[rows][order], kind="stable")]
    found[rows[order]] = np.arange(len(rows)) % folds
    return found


def _count(index: CsvIndex, rows: Rows, name: str, share: float | None) -> int:
    if share is None:
        return 0
    count = round(len(rows) * share)
    purpose = {"val": "evaluate", "test": "test"}[name]
    require(
        0 < count < len(rows),
        f"--data.{name}-fraction {share} of the {len(rows)} rows of {index.csv} is {count}; "
        f"it must leave rows to train on and to {purpose} on",
    )
    return count


def _permutation(count: int, seed: int) -> Rows:
    keys = np.full(count, key_for(Use.HELD_OUT, seed), np.uint64)
    return shuffled_rows(np.arange(count), num_rows=count, keys=keys)


def _stratified(rows: Rows, classes: Rows, counts: dict[str, int], seed: int) -> dict[str, Rows]:
    """Each class has its share of each part, to one row; one row of each class is trained on in any case."""
    order = _permutation(len(rows), seed)
    order = order[np.argsort(classes[order], kind="stable")]
    ordered = classes[order]
    is_first = np.r_[True, ordered[1:] != ordered[:-1]]
    left, numbers = rows[order[~is_first]], {}
    for name in ("test", "val"):
        # Evenly spaced rows of a list that is sorted by class.
        steps = np.arange(len(left) + 1) * min(counts[name], len(left)) // max(1, len(left))
        taken = np.diff(steps) > 0
        numbers[name], left = left[taken], left[~taken]
    return numbers


def _by_group(index: CsvIndex, rows: Rows, column: str, counts: dict[str, int], seed: int) -> dict[str, Rows]:
    """Whole groups, in random order, as many as come closest to each part's share; one is trained on in any case."""
    _require_all(index, rows, column)
    _, first, group_of = np.unique(_keys(index, column)[rows], return_index=True, return_inverse=True)
    groups, parts = len(first), [name for name in ("test", "val") if counts[name]]
    require(
        groups > len(parts),
        f"--data.split group:{column}: {index.csv} has {groups} groups; at least {len(parts) + 1} are needed",
    )
    # In the order of their first rows, which depends only on the content.
    order = np.argsort(first)[_permutation(groups, seed)]
    sizes, numbers = np.bincount(group_of), {"val": rows[:0], "test": rows[:0]}
    for done, name in enumerate(parts):
        reached = np.cumsum(sizes[order[: len(order) - (len(parts) - done)]])
        taken = 1 + int(np.argmin(np.abs(reached - counts[name])))
        numbers[name], order = rows[np.isin(group_of, order[:taken])], order[taken:]
    return numbers


def _by_time(index: CsvIndex, rows: Rows, column: str, counts: dict[str, int]) -> dict[str, Rows]:
    """The latest rows are tested on, those before them evaluated on; rows of the same time are in the same part."""
    _require_all(index, rows, column)
    times = _times(index, column)[rows]
    if np.isnan(times).any():
        row = index.names.row(int(index.positions()[rows[np.isnan(times)][0]]))
        raise DataError(
            f"{row}: column '{column}' holds neither a number nor a date as other rows do, which "
            f"--data.split time:{column} needs; mend it"
        )
    order = np.argsort(times, kind="stable")
    rows, times = rows[order], times[order]
    numbers: dict[str, Rows] = {}
    for name in ("test", "val"):
        # Moved back to the first row of the same time.
        start = int(np.searchsorted(times, times[len(times) - counts[name]])) if counts[name] else len(times)
        numbers[name], rows, times = rows[start:], rows[:start], times[:start]
        require(
            bool(len(rows)),
            f"--data.split time:{column}: too few rows of {index.csv} are of another time than the latest",
        )
    return numbers


def _keys(index: CsvIndex, column: str) -> Rows:
    """A number for each row of the index, the same for the same cell, of shape (rows,)."""
    kind = index.column(column).type
    found = []
    for batch in index.batches([column]):
        cells = batch[column]
        if kind == "number":
            found.append((cells.to_numpy(zero_copy_only=False) + 0.0).view(np.int64))
        elif kind == "category":
            found.append(cells.to_numpy().astype(np.int64))
        else:
            encoded = cells.dictionary_encode()
            digests = (hashlib.blake2b(str(one).encode(), digest_size=8) for one in encoded.dictionary.to_pylist())
            hashes = np.array([int.from_bytes(one.digest(), "little", signed=True) for one in digests], np.int64)
            found.append(hashes[encoded.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(found)


def _times(index: CsvIndex, column: str) -> npt.NDArray[np.float64]:
    """The time of each row of the index, of shape (rows,): a number, or the seconds of a date; NaN if it is neither."""
    if index.column(column).type == "number":
        numbers = [batch[column].to_numpy(zero_copy_only=False) for batch in index.batches([column])]
        return np.concatenate(numbers)
    evidence = DateEvidence()
    for batch in index.batches([column]):
        evidence.add(index.text_of(column, batch[column]))
    order = evidence.order
    if order is None:
        raise DataError(
            f"{index.csv}: --data.split time:{column}: the column holds neither numbers nor dates such as 2024-01-31"
        )
    return np.concatenate(
        [seconds_of(index.text_of(column, batch[column]), order) for batch in index.batches([column])]
    )


def _require_all(index: CsvIndex, rows: Rows, column: str) -> None:
    """Refuse rows whose cell in the column to split by is missing.

    Raises:
        DataError: with the first such line.
    """
    kind = index.column(column).type
    found = []
    for batch in index.batches([column]):
        cells = batch[column]
        missing = pc.is_null(cells) if kind == "number" else pc.equal(cells, -1 if kind == "category" else "")
        found.append(missing.to_numpy(zero_copy_only=False))
    absent = rows[np.concatenate(found)[rows]]
    if len(absent):
        row = index.names.row(int(index.positions()[absent[0]]))
        raise DataError(
            f"{row}: column '{column}' is empty, as in {len(absent)} rows in all, and "
            "--data.split needs it in each; fill it, or take those rows out of the file"
        )
