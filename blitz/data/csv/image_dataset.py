"""A CSV of images and labels: what is fitted on its training rows, and its rows as a model takes them."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow

from blitz.data.arrays import FAULT, Columns, new_column
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.csv.reading.bad_rows import BadRows, faults_of, join_faults
from blitz.data.csv.reading.columns import ColumnReport, ColumnType, are_words
from blitz.data.csv.reading.image_files import NO_SUCH_FILE, check_images
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.numbers import Decimal
from blitz.data.csv.reading.scan import CsvOptions
from blitz.data.csv.reading.statistics import statistics_of
from blitz.data.csv.source import Mask
from blitz.data.csv.table import CsvTable, unknown_labels
from blitz.data.order import Rows
from blitz.data.plan import Split
from blitz.errors import DataError, require
from blitz.fields import may_change
from blitz.storage import Folder, absolute, folder_of, is_folder
from blitz.visible import visible


@dataclass(frozen=True)
class NumberTarget:
    """A number that is learned, as (number - mean) / std."""

    name: str
    mean: float
    std: float


@dataclass(frozen=True)
class ImageFit:
    """What is known of a CSV of images from its training rows; a run is resumed on the same `content` alone."""

    content: str
    """SHA-256 of the CSV, hexadecimal."""
    image_column: str
    task: Literal["classification", "numbers", "points"]
    targets: tuple[str, ...]
    """The columns that are learned."""
    classes: tuple[str, ...] = may_change(())
    numbers: tuple[NumberTarget, ...] = may_change(())
    """Of the task `numbers`, one for each target."""
    decimal: Decimal = may_change(".")
    """How another CSV writes numbers, if its cells do not show it."""

    @property
    def types(self) -> dict[str, ColumnType]:
        """The type of every column that is read."""
        kind: ColumnType = "category" if self.classes else "number"
        return {self.image_column: "text", **dict.fromkeys(self.targets, kind)}


class CsvImages:
    """Images that a CSV names, and what is learned of them: rows of its index where `kept` is true.

    Rows whose `files` are known to be of no use are among them, as faults: order and parts do not depend on files. A
    file that only now turns out to be so is a fault of its row too, or an error where bad rows are one. `left_out` are
    all bad rows.
    """

    def __init__(
        self, index: CsvIndex, data: ImageCsvData, fit: ImageFit, kept: Mask, left_out: BadRows, files: BadRows
    ) -> None:
        self._known = dict(zip(files.faults["row"].to_pylist(), files.faults["reason"].to_pylist(), strict=True))
        self.data, self.fit, self.left_out = data, fit, left_out
        self._csv, self._root = index.csv, _root(data, index)
        self.table = CsvTable(
            index, [*fit.types], categories=dict.fromkeys(fit.targets, fit.classes), without=np.flatnonzero(~kept)
        )
        self._has_targets = bool(fit.targets)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def index(self) -> CsvIndex:
        """Where the rows are."""
        return self.table.index

    def __getitems__(self, rows: Rows) -> Columns:
        """`inputs` uint8 (batch, 3, side, side) and `targets`: int64 (batch,) classes, or float32 (batch, targets).

        Targets are there if the CSV has them. For points there is `frame`, float32 (batch, 4): where in the image the
        square lies that is seen, as its centre and half its extent (x, y, half width, half height) in pixels; targets
        are in units of half its extent from its centre.

        Raises:
            DataError: if a file is of no use, and bad rows are an error.
        """
        # Here, because torch takes seconds to import, and who only names the rows has no use for it.
        from blitz.data.images import decode_image

        cells = self.table.__getitems__(rows)
        paths, side = cells[self.fit.image_column], self.data.decoded
        known = [self._known.get(row) for row in self.table.index_rows(rows).tolist()]
        pixels = new_column((len(rows), 3, side, side), np.uint8)
        frames = np.ones((len(rows), 4), np.float32)
        reasons = {place: reason for place, reason in enumerate(known) if reason}
        unknown = [place for place, reason in enumerate(known) if not reason]
        reads = _folder(self._root, os.getpid()).read_each(paths[unknown].tolist())
        for place, read in zip(unknown, reads, strict=True):
            try:
                image, frame = decode_image(read(), side, self.data.fit)
            except FileNotFoundError:
                reasons[place] = NO_SUCH_FILE
            except (ValueError, OSError, pyarrow.ArrowException) as error:
                reasons[place] = str(error).splitlines()[0]
            else:
                pixels[place], frames[place] = image.numpy(), frame
        pixels[list(reasons)] = 0
        columns: dict[str, npt.NDArray[Any]] = {"inputs": pixels, FAULT: self._faults(rows, paths, reasons)}
        if self.fit.task == "points":
            columns["frame"] = frames
        if self._has_targets:
            columns["targets"] = self._targets(cells, frames)
        return columns

    def _targets(self, cells: Columns, frames: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        fit = self.fit
        if fit.task == "classification":
            classes: npt.NDArray[np.int64] = cells[fit.targets[0]]
            return classes
        values = np.stack([cells[name] for name in fit.targets], axis=1)
        if fit.task == "points":
            values = values.reshape(len(values), -1, 2)
            return ((values - frames[:, None, :2]) / frames[:, None, 2:]).reshape(len(values), -1).astype(np.float32)
        means, stds = (np.array([getattr(number, what) for number in fit.numbers]) for what in ("mean", "std"))
        standardised: npt.NDArray[np.float32] = ((values - means) / stds).astype(np.float32)
        return standardised

    def _faults(self, rows: Rows, paths: npt.NDArray[Any], reasons: Mapping[int, str]) -> npt.NDArray[np.str_]:
        records = np.full(len(rows), "", object)
        if reasons:
            places = np.array(list(reasons))
            lines = self.table.lines(rows[places])
            column = self.fit.image_column
            # One by one: faults are sorted by line.
            for place, line, reason in zip(places, lines, reasons.values(), strict=True):
                fault = faults_of(np.array([line]), column, [paths[place]], reason, None)
                bad = join_faults(self._csv, [fault])
                if self.data.bad_rows == "fail":
                    raise DataError(f"{bad.messages(1)[0]}; mend it, or go on without it: --data.bad-rows skip")
                records[place] = bad.records()[0]
        return records.astype(np.str_)


class FileChecks:
    """Which rows have invalid files, as found since the fit.

    A run asks three times, and checking a million files takes minutes.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], BadRows] = {}

    def bad_rows(self, index: CsvIndex, data: ImageCsvData, image_column: str) -> BadRows:
        """Rows of an index whose files are missing, or are no whole images."""
        root = _root(data, index)
        key = (index.path, index.csv, image_column, root, data.image_check)
        if key not in self._found:
            self._found[key] = check_images(index, image_column, root, data.image_check)
        return self._found[key]


def fit_images(data: ImageCsvData, seed: int, checks: FileChecks) -> ImageFit:
    """Columns, classes, means and deviations, from the training rows; prints which columns they are.

    Raises:
        DataError: if the CSV, a column of it or too many of its rows cannot be used.
        UserError: if `data` does not say what to learn from which CSV.
    """
    data.check()
    image_column, targets = data.columns()
    index = data.train_index(_train_options(data, image_column, targets))
    if data.train_dir is None:
        print(f"{index.csv}: {index.described()}")
    kinds = {index.column(name).type for name in targets}
    task = data.task
    if task == "auto":
        task = "classification" if kinds == {"category"} else "numbers"
    fit = ImageFit(index.content, image_column, task, targets, decimal=index.decimal)
    bad = _faults(index, targets)
    data.judged(bad + checks.bad_rows(index, data, image_column), index)
    kept, held_out = data.parts(index, bad.rows(), seed)
    if task == "classification":
        # Also those that the seed happens to hold out.
        classes = statistics_of(index, targets, kept | held_out)[targets[0]].values or ()
        if len(classes) < 2:
            raise DataError(
                f"{index.csv}: column '{targets[0]}' holds {', '.join(classes) or 'nothing'} in all rows; "
                "there must be two classes at least"
            )
        what = f"{len(classes)} classes in column '{targets[0]}'"
        print(visible(f"{index.csv}: images in column '{image_column}'; learns {what}"))
        return replace(fit, classes=classes)
    if not kept.any():
        raise DataError(f"{index.csv} has no row to train on")
    reports = statistics_of(index, targets, kept)
    for name, report in reports.items():
        if task == "numbers" and report.is_constant:
            raise DataError(
                f"{index.csv}: column '{name}' holds {report.mean} in all rows to train on; "
                "there must be two values at least"
            )
    what = f"column '{targets[0]}'" if len(targets) == 1 else f"{len(targets)} columns of numbers"
    for report in reports.values():
        if report.note:
            print(visible(f"{index.csv}: column '{report.name}': {report.note}"))
    print(visible(f"{index.csv}: images in column '{image_column}'; learns {what}"))
    if task == "points":
        return fit
    return replace(fit, numbers=tuple(_number_target(report) for report in reports.values()))


def _number_target(report: ColumnReport) -> NumberTarget:
    assert report.mean is not None
    assert report.std is not None
    return NumberTarget(report.name, report.mean, report.std)


def image_rows(data: ImageCsvData, fit: ImageFit, split: Split, seed: int, checks: FileChecks) -> CsvImages:
    """The rows of a split; without a CSV or a share to evaluate on, `val` has none.

    Raises:
        DataError: if a CSV, a column of it or too many of its rows cannot be used, or if it is not what was fitted on.
    """
    if split == "val" and data.val_place is not None:
        options = data.options(
            types=fit.types,
            label_columns=fit.targets,
            image_column=fit.image_column,
            usual_decimal=fit.decimal,
            verbatim=fit.targets if data.val_dir is not None or are_words(fit.classes) else (),
        )
        index = index_csv(data.val_place, data.cache, options)
        bad = _faults(index, fit.targets)
        if fit.classes:
            bad += unknown_labels(index, fit.targets[0], fit.classes, data.train_place)
        kept = np.ones(index.rows, bool)
        kept[bad.rows()] = False
    else:
        index = data.train_index(_train_options(data, fit.image_column, fit.targets), content=fit.content)
        bad = _faults(index, fit.targets)
        train, val = data.parts(index, bad.rows(), seed)
        kept = train if split == "train" else val
    files = checks.bad_rows(index, data, fit.image_column)
    data.judged(bad + files, index)
    return CsvImages(index, data, fit, kept, bad + files, files)


def image_inputs(data: ImageCsvData, fit: ImageFit, csv: str) -> CsvImages:
    """The rows of a CSV to predict for, whether it has targets or not; a file of no use is a fault of its row.

    Raises:
        DataError: if it cannot be read, or has no column of images.
    """
    require(not is_folder(csv), f"{csv} is a folder; name a CSV with a column '{fit.image_column}' of images")
    index = index_csv(csv, data.cache, data.options(types={}, label_columns=(), image_column=fit.image_column))
    return CsvImages(
        index,
        replace(data, bad_rows="skip"),
        replace(fit, targets=()),
        np.ones(index.rows, bool),
        _faults(index, ()),
        join_faults(csv, []),
    )


def _faults(index: CsvIndex, targets: Collection[str]) -> BadRows:
    """Rows that are bad by the CSV's own bytes."""
    return index.bad_rows().without_numbers_of(name for name in index.dialect.names if name not in targets)


def _root(data: ImageCsvData, index: CsvIndex) -> str:
    if data.image_root is not None:
        return absolute(data.image_root)
    return absolute(index.csv) if is_folder(index.csv) else folder_of(index.csv)


def _train_options(data: ImageCsvData, image_column: str, targets: tuple[str, ...]) -> CsvOptions:
    types: dict[str, ColumnType] = {**data.types}
    if len(targets) > 1 or data.task in ("numbers", "points"):
        types.update(dict.fromkeys(targets, "number"))
    elif data.task == "classification" or data.train_dir is not None:
        types[targets[0]] = "category"
    # The name of a folder is a class, whatever it is.
    verbatim = targets if data.train_dir is not None else ()
    return data.options(types=types, label_columns=targets, image_column=image_column, verbatim=verbatim)


@lru_cache(maxsize=8)
def _folder(root: str, process: int) -> Folder:
    """For each process its own: a forked one cannot use the connections of the one that it was forked from."""
    return Folder(root)
