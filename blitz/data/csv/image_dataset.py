"""A CSV of images and labels: the fit on its training rows, and its rows as model inputs."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow

from blitz.data.arrays import FAULT, Columns, new_column
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.csv.labels import LabelRows, Labels
from blitz.data.csv.reading.bad_rows import BadRows, faults_of, join_faults
from blitz.data.csv.reading.columns import ColumnReport, ColumnType, are_words
from blitz.data.csv.reading.image_files import NO_SUCH_FILE, check_images
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.numbers import Decimal
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.reading.statistics import statistics_of
from blitz.data.csv.source import Mask, TrainingCsv
from blitz.data.csv.table import CsvTable, unknown_labels
from blitz.data.order import Rows
from blitz.data.plan import Split
from blitz.errors import DataError, require
from blitz.fields import may_change
from blitz.storage import Folder, absolute, folder_of, is_folder
from blitz.visible import visible

LearnedTask = Literal["classification", "numbers", "points", "multilabel"]


@dataclass(frozen=True)
class NumberTarget:
    """A number to learn, standardised as (number - mean) / std."""

    name: str
    mean: float
    std: float

    @classmethod
    def fitted(cls, index: CsvIndex, report: ColumnReport) -> Self:
        """From the statistics of the training rows.

        Raises:
            DataError: if they all hold the same number.
        """
        if report.is_constant:
            raise DataError(
                f"{index.csv}: column '{report.name}' holds {report.mean} in all rows to train on; "
                "there must be at least two values"
            )
        assert report.mean is not None
        assert report.std is not None
        return cls(report.name, report.mean, report.std)


@dataclass(frozen=True)
class ImageFit:
    """What was fitted on the training rows of a CSV of images; a run only resumes on the same `content`."""

    content: str
    """SHA-256 of the CSV, hexadecimal."""
    image_column: str
    task: LearnedTask
    targets: tuple[str, ...]
    """The columns to learn."""
    classes: tuple[str, ...] = may_change(())
    numbers: tuple[NumberTarget, ...] = may_change(())
    """For the task `numbers`, one for each target."""
    decimal: Decimal = may_change(".")
    """The decimal mark of another CSV, if its cells do not show it."""
    labels: Labels | None = may_change(None)
    """For the task `multilabel`."""

    @property
    def types(self) -> dict[str, ColumnType]:
        """The type of every column that is read."""
        if self.labels is not None:
            return {self.image_column: "text", **self.labels.types}
        kind: ColumnType = "category" if self.classes else "number"
        return {self.image_column: "text", **dict.fromkeys(self.targets, kind)}


class CsvImages:
    """Images that a CSV names, and their targets: rows of its index where `kept` is true.

    Rows whose `files` are known to be invalid are included, as faults, so that order and parts do not depend on files.
    A file that turns out to be invalid later is a fault of its row, too, or an error if bad rows are errors. `left_out`
    are all bad rows.
    """

    rows_in_class_order: npt.NDArray[np.int32] | Rows

    def __init__(
        self, index: CsvIndex, data: ImageCsvData, fit: ImageFit, kept: Mask, left_out: BadRows, files: BadRows
    ) -> None:
        self._known = dict(zip(files.faults["row"].to_pylist(), files.faults["reason"].to_pylist(), strict=True))
        self.data, self.fit, self.left_out = data, fit, left_out
        self._names, self._root = index.names, _root(data, index)
        without = np.flatnonzero(~kept)
        labels = fit.labels if fit.targets else None
        columns = [name for name in fit.types if labels is None or name not in labels.columns]
        self.table = CsvTable(index, columns, categories=dict.fromkeys(fit.targets, fit.classes), without=without)
        self._labels = LabelRows(index, labels, without) if labels else None
        self._has_targets = bool(fit.targets) and labels is None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def index(self) -> CsvIndex:
        """The index of the CSV."""
        return self.table.index

    def __getitems__(self, rows: Rows) -> Columns:
        """`inputs` uint8 (batch, 3, side, side) and `targets`: int64 (batch,) classes, or float32 (batch, targets).

        Those of labels are 0 and 1, (batch, labels).

        Targets are there if the CSV has them. For points there is `frame`, float32 (batch, 4): the visible square of
        the image, as its centre and half its extent (x, y, half width, half height) in pixels; targets are in units of
        half its extent from its centre.

        Raises:
            DataError: if a file is invalid, and bad rows are an error.
        """
        # Imported here, because torch takes seconds, and a process that only lists the rows does not need it.
        from blitz.data.images import decode_image

        cells = self.table.__getitems__(rows)
        paths, side = cells[self.fit.image_column], self.data.decoded
        known = [self._known.get(row) for row in self.table.index_rows(rows).tolist()]
        pixels = new_column((len(rows), 3, side, side), np.uint8)
        frames = np.ones((len(rows), 4), np.float32)
        reasons = {i: reason for i, reason in enumerate(known) if reason}
        unknown = [i for i, reason in enumerate(known) if not reason]
        reads = _folder(self._root, os.getpid()).read_each(paths[unknown].tolist())
        for i, read in zip(unknown, reads, strict=True):
            try:
                image, frame = decode_image(read(), side, self.data.fit)
            except FileNotFoundError:
                reasons[i] = NO_SUCH_FILE
            except (ValueError, OSError, pyarrow.ArrowException) as error:
                reasons[i] = str(error).splitlines()[0]
            else:
                pixels[i], frames[i] = image.numpy(), frame
        pixels[list(reasons)] = 0
        columns: dict[str, npt.NDArray[Any]] = {"inputs": pixels, FAULT: self._faults(rows, paths, reasons)}
        if self.fit.task == "points":
            columns["frame"] = frames
        if self._labels is not None:
            columns["targets"] = self._labels.targets(rows)
        if self._has_targets:
            columns["targets"] = self._targets(cells, frames)
        return columns

    def labels(self, rows: Rows) -> npt.NDArray[np.int64]:
        """The number of the class of each row, int64 (batch,), without reading its image."""
        found: npt.NDArray[np.int64] = self.table.__getitems__(rows)[self.fit.targets[0]]
        return found

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
            lines = self.table.lines(rows[np.array(list(reasons))])
            column = self.fit.image_column
            # One by one, because faults are sorted by line.
            for line, (i, reason) in zip(lines, reasons.items(), strict=True):
                fault = faults_of(np.array([line]), column, [paths[i]], reason, None)
                bad = join_faults(self._names, [fault])
                if self.data.bad_rows == "fail":
                    raise DataError(f"{bad.messages(1)[0]}; mend it, or leave it out: --data.bad-rows skip")
                records[i] = bad.records()[0]
        return records.astype(np.str_)


@dataclass(frozen=True)
class TrainingImages(TrainingCsv):
    """The CSV of images to train on, its rows split, and which of them have invalid files."""

    data: ImageCsvData
    files: BadRows
    """These rows stay in their part; `bad` are the rows whose cells in the CSV are invalid."""


def fit_images(data: ImageCsvData, seed: int) -> tuple[ImageFit, TrainingImages]:
    """Columns, classes, means and deviations, from the training rows; prints the columns. With the CSV, opened.

    Raises:
        DataError: if the CSV, a column of it or too many of its rows cannot be used.
        UserError: if `data` names no CSV or nothing to learn.
    """
    data.check()
    image_column, targets = data.columns()
    index = data.train_index(_train_options(data, image_column, targets))
    if data.train_dir is None:
        print(f"{index.csv}: {index.described()}")
    fit = ImageFit(index.content, image_column, _task(data, index, targets), targets, decimal=index.decimal)
    images = _training_images(data, seed, index, fit)
    what = f"column '{targets[0]}'" if len(targets) == 1 else f"{len(targets)} columns of numbers"
    if fit.task == "classification":
        fit = replace(fit, classes=_classes(images, targets[0]))
        what = f"{len(fit.classes)} classes in {what}"
    elif fit.task == "multilabel":
        fit = replace(fit, labels=_labels(data, images, targets))
        what = f"{len(fit.labels.names) if fit.labels else 0} labels in {what}"
    else:
        if not images.parts.train.any():
            raise DataError(f"{index.csv} has no row to train on")
        reports = statistics_of(index, targets, images.parts.train).values()
        if fit.task == "numbers":
            fit = replace(fit, numbers=tuple(NumberTarget.fitted(index, report) for report in reports))
        for report in reports:
            if report.note:
                print(visible(f"{index.csv}: column '{report.name}': {report.note}"))
    print(visible(f"{index.csv}: images in column '{image_column}'; learns {what}"))
    return fit, images


def image_rows(
    data: ImageCsvData, fit: ImageFit, split: Split, seed: int, opened: TrainingImages | None = None
) -> CsvImages:
    """The rows of a split; without a CSV or a share to evaluate on, `val` has none.

    The training CSV is read again, and its files are checked, unless it is `opened`, with the same settings.

    Raises:
        DataError: if a CSV, a column of it or too many of its rows cannot be used, or if it is not what was fitted on.
    """
    other: dict[Split, str | None] = {"train": None, "val": data.val_source, "test": data.test_csv}
    if (csv := other[split]) is not None:
        return _val_images(data, fit, csv)
    images = opened
    if images is None or not images.is_of(data, seed):
        index = data.train_index(_train_options(data, fit.image_column, fit.targets), content=fit.content)
        images = _training_images(data, seed, index, fit)
    return CsvImages(images.index, data, fit, images.parts.of(split), images.bad + images.files, images.files)


def image_inputs(data: ImageCsvData, fit: ImageFit, csv: str) -> CsvImages:
    """The rows of a CSV to predict for, whether it has targets or not; an invalid file is a fault of its row.

    Raises:
        DataError: if it cannot be read, or has no column of images.
    """
    require(not is_folder(csv), f"{csv} is a folder; name a CSV with a column '{fit.image_column}' of images")
    index = index_csv(csv, data.cache, data.options(types={}, label_columns=(), image_column=fit.image_column))
    return CsvImages(
        index,
        replace(data, bad_rows="skip"),
        replace(fit, targets=(), labels=None),
        np.ones(index.rows, bool),
        _faults(index, ()),
        join_faults(index.names, []),
    )


def _task(data: ImageCsvData, index: CsvIndex, targets: tuple[str, ...]) -> LearnedTask:
    if data.label_separator:
        return "multilabel"
    if data.task != "auto":
        return data.task
    return "classification" if {index.column(name).type for name in targets} == {"category"} else "numbers"


def _training_images(data: ImageCsvData, seed: int, index: CsvIndex, fit: ImageFit) -> TrainingImages:
    bad = _faults(index, fit.targets)
    files = check_images(index, fit.image_column, _root(data, index), data.image_check)
    data.rows_to_leave_out(bad + files, index)
    classes = fit.targets[0] if fit.task == "classification" else None
    parts = data.parts(index, bad.rows(), seed, classes=classes)
    return TrainingImages(data, seed, index, bad, parts, files)


def _classes(images: TrainingImages, column: str) -> tuple[str, ...]:
    """The classes, including those that occur only in held-out rows.

    Raises:
        DataError: if there are less than two.
    """
    classes = statistics_of(images.index, [column], images.parts.labeled)[column].values or ()
    if len(classes) < 2:
        raise DataError(
            f"{images.index.csv}: column '{column}' holds {', '.join(classes) or 'nothing'} in all rows; "
            "there must be at least two classes"
        )
    return classes


def _labels(data: ImageCsvData, images: TrainingImages, targets: tuple[str, ...]) -> Labels:
    if data.label_separator:
        return Labels.of_lists(images.index, targets[0], data.label_separator, images.parts.labeled)
    return Labels.of_columns(images.index, targets)


def _val_images(data: ImageCsvData, fit: ImageFit, csv: str) -> CsvImages:
    options = data.options(
        types=fit.types,
        label_columns=fit.targets if fit.labels is None else fit.labels.label_columns,
        image_column=fit.image_column,
        usual_decimal=fit.decimal,
        verbatim=fit.targets if data.val_dir is not None or are_words(fit.classes) else (),
    )
    index = index_csv(csv, data.cache, options)
    bad = _faults(index, fit.targets)
    if fit.labels is not None:
        bad += fit.labels.unknown(index, data.train_source)
    if fit.classes:
        bad += unknown_labels(index, fit.targets[0], fit.classes, data.train_source)
    kept = np.ones(index.rows, bool)
    kept[bad.rows()] = False
    files = check_images(index, fit.image_column, _root(data, index), data.image_check)
    data.rows_to_leave_out(bad + files, index)
    return CsvImages(index, data, fit, kept, bad + files, files)


def _faults(index: CsvIndex, targets: Collection[str]) -> BadRows:
    """Rows that are bad by the CSV's content alone."""
    return index.bad_rows().without_numbers_of(name for name in index.dialect.names if name not in targets)


def _root(data: ImageCsvData, index: CsvIndex) -> str:
    if data.image_root is not None:
        return absolute(data.image_root)
    source = index.files[0].file.name
    return absolute(source) if is_folder(source) else folder_of(source)


def _train_options(data: ImageCsvData, image_column: str, targets: tuple[str, ...]) -> CsvOptions:
    types: dict[str, ColumnType] = {**data.types}
    if data.label_separator:
        types[targets[0]] = "text"
    elif data.task == "multilabel":
        types.update(dict.fromkeys(targets, "category"))
    elif len(targets) > 1 or data.task in ("numbers", "points"):
        types.update(dict.fromkeys(targets, "number"))
    elif data.task == "classification" or data.train_dir is not None:
        types[targets[0]] = "category"
    # The name of a folder is a class, even if it is a word for a missing value.
    verbatim = targets if data.train_dir is not None else ()
    # A list of labels may be empty.
    filled = () if data.label_separator else targets
    return data.options(types=types, label_columns=filled, image_column=image_column, verbatim=verbatim)


@lru_cache(maxsize=8)
def _folder(root: str, process: int) -> Folder:
    """One for each process: a forked process cannot use its parent's connections."""
    return Folder(root)
