"""A CSV as features and a target: the fit on its training rows, and its rows as model inputs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from blitz.data.arrays import Columns
from blitz.data.csv.quantiles import quantiles_of
from blitz.data.csv.reading.bad_rows import BadRows
from blitz.data.csv.reading.columns import ColumnReport, ColumnType, are_identifiers, are_whole, are_words, in_order
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.numbers import LARGEST_NUMBER, Decimal
from blitz.data.csv.reading.statistics import kept_batches, statistics_of
from blitz.data.csv.source import CsvSource, Mask
from blitz.data.csv.table import CsvTable, unknown_labels
from blitz.data.order import Rows
from blitz.data.plan import Split
from blitz.errors import DataError, require
from blitz.fields import may_change
from blitz.visible import visible

Task = Literal["auto", "classification", "regression"]

_MOST_WHOLE_CLASSES = 20


@dataclass(frozen=True)
class CsvData(CsvSource):
    """The features and the target of a CSV."""

    target: str = ""
    """The column to learn; all others are features."""
    ignore: tuple[str, ...] = ()
    """Columns that are not features."""
    task: Task = "auto"
    """auto classifies a category, or a number with at most 20 distinct values that are all whole."""


@dataclass(frozen=True)
class NumberFeature:
    """A number column: moments and quantiles of the training rows, and whether some of those lack it."""

    name: str
    mean: float
    std: float
    """3e38 if all numbers are the same, so that only the missing flag is a feature."""
    has_missing: bool
    """Whether it is missing in some training rows: then another column flags these by 1."""
    quantiles: tuple[float, ...] = ()
    """At the levels 0/48, 1/48, …, 48/48."""


@dataclass(frozen=True)
class CategoryFeature:
    """A category column: the code of its value i is i + 1, that of a missing or unknown value 0."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """The target: one of `classes`, or if there are none a number, standardised as (number - mean) / std."""

    name: str
    type: ColumnType
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class CsvFit:
    """What was fitted on the training rows of a CSV.

    A run only resumes on the same `content`. Everything else follows from that and the recipe's settings, and is not
    compared again, because another machine may round a number in another way.
    """

    content: str
    """SHA-256 of the CSV, hexadecimal."""
    target: Target = may_change()
    numbers: tuple[NumberFeature, ...] = may_change()
    categories: tuple[CategoryFeature, ...] = may_change()
    decimal: Decimal = may_change(".")
    """The decimal mark of another CSV, if its cells do not show it."""
    rows: int = may_change(0)
    """How many rows it was fitted on."""

    @property
    def number_columns(self) -> int:
        """Numbers of a row, including the flags for missing ones."""
        return len(self.numbers) + sum(feature.has_missing for feature in self.numbers)

    @property
    def codes(self) -> tuple[int, ...]:
        """For each category the number of its codes."""
        return tuple(len(feature.values) + 1 for feature in self.categories)

    @property
    def types(self) -> dict[str, ColumnType]:
        """The type of every column that is read."""
        types: dict[str, ColumnType] = {feature.name: "number" for feature in self.numbers}
        types |= {feature.name: "category" for feature in self.categories}
        return types | {self.target.name: self.target.type}

    @property
    def verbatim(self) -> tuple[str, ...]:
        """Categories of words, whose cells are taken literally in another CSV, too."""
        values = {feature.name: feature.values for feature in self.categories} | {self.target.name: self.target.classes}
        return tuple(name for name, words in values.items() if are_words(words))


class CsvRows:
    """Rows of a CSV as model inputs: those of its index where `kept`, of shape (rows of the index,), is true.

    `left_out` are the bad ones among the others.
    """

    def __init__(self, index: CsvIndex, fit: CsvFit, kept: Mask, left_out: BadRows) -> None:
        self.fit, self.left_out = fit, left_out
        known = {feature.name: feature.values for feature in fit.categories} | {fit.target.name: fit.target.classes}
        columns = [name for name in fit.types if name in index.dialect.names]
        self.table = CsvTable(index, columns, categories=known, without=np.flatnonzero(~kept))
        self._has_targets = fit.target.name in columns

    def __len__(self) -> int:
        return len(self.table)

    @property
    def index(self) -> CsvIndex:
        """The index of the CSV."""
        return self.table.index

    def __getitems__(self, rows: Rows) -> Columns:
        """`numbers` float64 (batch, numbers), `categories` int64 (batch, categories), and `targets` (batch,).

        Numbers are not standardised, NaN where missing; category code 0 is missing or unknown. Targets are there if the
        CSV has them: the int64 index of a class, or a standardised number as float32.
        """
        fit = self.fit
        # The target is the last column of its type.
        numbers, categories = self.table.number_matrix(rows), self.table.category_matrix(rows)
        features: Columns = {
            "numbers": numbers[:, : len(fit.numbers)],
            "categories": categories[:, : len(fit.categories)] + 1,
        }
        if not self._has_targets:
            return features
        targets: npt.NDArray[Any] = (numbers if fit.target.type == "number" else categories)[:, -1]
        if not fit.target.classes:
            targets = ((targets - fit.target.mean) / fit.target.std).astype(np.float32)
        elif fit.target.type == "number":
            targets = np.searchsorted([float(name) for name in fit.target.classes], targets)
        return {**features, "targets": targets}


def fit_csv(data: CsvData, seed: int) -> CsvFit:
    """Means, deviations, vocabularies and classes of the training rows, in one pass over the index.

    Prints the columns that are left out.

    Raises:
        DataError: if the CSV, a column of it or too many of its rows cannot be used.
        UserError: if `data` names no CSV or no target, or two ways to evaluate.
    """
    data.check()
    require(bool(data.target), "name the column to learn with --data.target COLUMN")
    require(data.target not in data.ignore, f"--data.ignore names '{data.target}', which is to be learned")
    index, classifies = _train_index(data)
    bad = _train_faults(index, data)
    kept, held_out = data.parts(index, data.rows_to_leave_out(bad, index), seed)
    print(f"{index.csv}: {index.described()}")
    reports = statistics_of(index, index.dialect.names, kept)
    trained = kept
    if classifies:
        # Including classes that occur only in held-out rows.
        kept = kept | held_out
        reports |= statistics_of(index, [data.target], kept)
    target = _target(index, reports[data.target], kept, classifies=classifies)
    features = [report for report in reports.values() if report.name not in (data.target, *data.ignore)]
    # A constant that is missing in some rows may still be informative.
    constant = dict.fromkeys(
        report.name for report in features if report.count and report.is_constant and not report.missing
    )
    numbers = [report for report in features if report.mean is not None and report.name not in constant]
    quantiles = quantiles_of(index, [report.name for report in numbers], trained, seed)
    fit = CsvFit(
        index.content,
        target,
        tuple(
            NumberFeature(report.name, report.mean, _scale(report), report.missing > 0, quantiles[report.name])
            for report in numbers
            if report.mean is not None
        ),
        tuple(
            CategoryFeature(report.name, report.values)
            for report in features
            if report.values and report.name not in constant
        ),
        index.decimal,
        int(trained.sum()),
    )
    used = {*fit.types, *constant}
    unused = [report.name for report in features if report.name not in used]
    if not fit.numbers and not fit.categories:
        raise DataError(
            f"{index.csv} has no column to learn '{data.target}' from: numbers and categories are learned from, "
            f"and there is {', '.join([*unused, *constant]) or 'none'}; declare types with --data.types COLUMN category"
        )
    if unused:
        print(f"{index.csv}: not learned from, because they are text or empty: {visible(', '.join(unused))}")
    if constant:
        print(f"{index.csv}: not learned from, because they are the same in all rows: {visible(', '.join(constant))}")
    for report in (reports[data.target], *features):
        if report.note:
            print(visible(f"{index.csv}: column '{report.name}': {report.note}"))
    return fit


def csv_rows(data: CsvData, fit: CsvFit, split: Split, seed: int) -> CsvRows:
    """The rows of a split; without a CSV or a share to evaluate on, `val` has none.

    Raises:
        DataError: if a CSV, a column of it or too many of its rows cannot be used, or if it is not what was fitted on.
    """
    if split == "val" and data.val_csv is not None:
        options = data.options(
            types=fit.types, label_columns=(data.target,), usual_decimal=fit.decimal, verbatim=fit.verbatim
        )
        index = index_csv(data.val_csv, data.cache, options)
        bad = _faults(index, fit.types)
        if fit.target.classes:
            bad += unknown_labels(index, fit.target.name, fit.target.classes, data.train_csv)
        kept = np.ones(index.rows, bool)
        kept[data.rows_to_leave_out(bad, index)] = False
    else:
        index = _train_index(data, fit.content)[0]
        bad = _train_faults(index, data)
        train, val = data.parts(index, data.rows_to_leave_out(bad, index), seed)
        kept = train if split == "train" else val
    return CsvRows(index, fit, kept, bad)


def csv_inputs(data: CsvData, fit: CsvFit, csv: str) -> CsvRows:
    """The rows of a CSV to predict for, whether it has a target or not.

    Raises:
        DataError: if it cannot be read, or lacks a column that the model was trained with.
    """
    types = {name: kind for name, kind in fit.types.items() if name != fit.target.name}
    # It may have another decimal mark than that given for the training CSV.
    own = replace(data, decimal=None)
    options = own.options(types=types, label_columns=(), usual_decimal=fit.decimal, verbatim=fit.verbatim)
    index = index_csv(csv, data.cache, options)
    read = replace(fit, target=replace(fit.target, name=""))
    return CsvRows(index, read, np.ones(index.rows, bool), _faults(index, types))


def _train_index(data: CsvData, content: str | None = None) -> tuple[CsvIndex, bool]:
    """The training CSV, and whether its target is to be classified."""
    index = data.train_index(data.options(types=data.types, label_columns=(data.target,)), content=content)
    for name in data.ignore:
        index.column(name)
    report = index.column(data.target)
    few = report.type == "number" and _whole_numbers(index, data.target, np.ones(index.rows, bool)) is not None
    if data.task != "auto":
        classifies = data.task == "classification"
    elif data.target in data.types or report.values is None:
        classifies = few or report.type == "category"
    else:
        few_or_named = len(report.values) <= _MOST_WHOLE_CLASSES or are_identifiers(report.values)
        classifies = few_or_named or not are_whole(report.values)
    kind: ColumnType = "category" if classifies else "number"
    if report.type == kind or (classifies and few):
        return index, classifies
    types: Mapping[str, ColumnType] = {**data.types, data.target: kind}
    return data.train_index(data.options(types=types, label_columns=(data.target,))), classifies


def _whole_numbers(index: CsvIndex, column: str, kept: Mask) -> tuple[str, ...] | None:
    """Distinct values of a number column if they are whole and few, in order."""
    found: set[float] = set()
    for batch in kept_batches(index, [column], kept):
        found.update(pc.unique(batch[column].drop_null()).to_pylist())
        if len(found) > _MOST_WHOLE_CLASSES or not all(value.is_integer() for value in found):
            return None
    return in_order(str(int(value)) for value in found)


def _train_faults(index: CsvIndex, data: CsvData) -> BadRows:
    return _faults(index, {column.name for column in index.columns} - set(data.ignore))


def _faults(index: CsvIndex, read: Collection[str]) -> BadRows:
    return index.bad_rows().without_numbers_of(column.name for column in index.columns if column.name not in read)


def _target(index: CsvIndex, report: ColumnReport, kept: Mask, *, classifies: bool) -> Target:
    """The target of the rows that are kept.

    Raises:
        DataError: if it is the same in all of them.
    """
    classes: tuple[str, ...] = ()
    if classifies:
        classes = (_whole_numbers(index, report.name, kept) if report.type == "number" else report.values) or ()
    if report.mean is None and not classes:
        raise DataError(f"{index.csv} has no row to train on whose '{report.name}' is there")
    if len(classes) == 1 or (not classes and report.is_constant):
        raise DataError(
            f"{index.csv}: column '{report.name}' holds {', '.join(classes) or report.mean} in all rows to train on; "
            "there must be at least two values"
        )
    if classes:
        return Target(report.name, report.type, classes)
    assert report.mean is not None
    assert report.std is not None
    return Target(report.name, "number", mean=report.mean, std=report.std)


def _scale(report: ColumnReport) -> float:
    """The divisor of a feature's numbers."""
    return LARGEST_NUMBER if report.is_constant or report.std is None else report.std
