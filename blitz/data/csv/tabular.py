"""A CSV as features and a target: the fit on its training rows, and its rows as model inputs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import tyro

from blitz.data.arrays import Columns
from blitz.data.csv.date_features import DateFeature, DateRows
from blitz.data.csv.features import (
    MOST_WHOLE_CLASSES,
    CategoryFeature,
    NumberFeature,
    Target,
    TargetScale,
    seem_to_count,
    whole_numbers,
)
from blitz.data.csv.labels import LabelRows, Labels
from blitz.data.csv.quantiles import quantiles_of
from blitz.data.csv.reading.bad_rows import BadRows
from blitz.data.csv.reading.columns import ColumnType, are_identifiers, are_whole, are_words
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.numbers import Decimal
from blitz.data.csv.reading.statistics import statistics_of
from blitz.data.csv.source import CsvSource, Mask, TrainingCsv
from blitz.data.csv.splits import fold_rows
from blitz.data.csv.table import CsvTable, unknown_labels
from blitz.data.csv.table_features import features_of
from blitz.data.csv.text_features import TextRows
from blitz.data.order import Rows
from blitz.data.plan import Split
from blitz.errors import UserError, require
from blitz.fields import may_change
from blitz.visible import visible

Folds = npt.NDArray[np.int16]
_TEXT: ColumnType = "text"
Task = Literal["auto", "classification", "regression"]


@dataclass(frozen=True)
class CsvData(CsvSource):
    """The features and the target of a CSV."""

    target: str = ""
    """The column to learn; all others are features."""
    labels: tuple[str, ...] = ()
    """Instead of a target, several columns of 0 and 1 to learn: labels, of which a row may have any number."""
    label_separator: str | None = None
    """If the target holds lists of labels, what separates them, such as ';'."""
    ignore: tuple[str, ...] = ()
    """Columns that are not features."""
    text: tuple[str, ...] = ()
    """Columns of free text to learn from, such as reviews; by default columns of text are left out."""
    task: Task = "auto"
    """auto classifies a category, or a number with at most 20 distinct values that are all whole."""
    folds: Annotated[int | None, tyro.conf.arg(aliases=["--folds"])] = None
    """Cross-validation: train so many models at once, each on all rows but those of its fold, on which it is evaluated.
    Predictions for other rows are the average of all."""
    target_scale: TargetScale = "auto"
    """How a number is learned: as it is, or its logarithm, which is undone in predictions and metrics. auto takes the
    logarithm of numbers from 0 on whose standard deviation is above three times their mean, or whose largest is more
    than 15 standard deviations above it."""

    def check(self) -> None:
        """Refuse what cannot be trained on.

        Raises:
            UserError: if no CSV or no target is named, or two ways to evaluate are.
        """
        if self.folds is not None:
            require(self.folds >= 2, f"--data.folds is {self.folds}; it must be at least 2")
            several = self.val_csv is None and self.val_fraction is None
            require(several, "--data.folds evaluates on all rows; leave out --data.val-csv and --data.val-fraction")
        super().check()
        learned = self.learned
        require(bool(learned), "name the column to learn with --data.target COLUMN")
        require(not (self.labels and self.target), "--data.labels and --data.target: give one of them")
        require(self.label_separator is None or bool(self.target), "--data.label-separator goes with --data.target")
        require(self.label_separator != "", "--data.label-separator is empty; give what separates labels, such as ';'")
        several = bool(self.labels or self.label_separator)
        require(not several or self.task == "auto", f"--data.task {self.task}: leave it out, as labels are learned")
        for flag, names in (("ignore", self.ignore), ("text", self.text)):
            for name in {*learned} & {*names}:
                raise UserError(f"--data.{flag} names '{name}', which is to be learned")

    @property
    def has_shares(self) -> bool:
        """See `CsvSource`."""
        return self.folds is not None or super().has_shares

    @property
    def learned(self) -> tuple[str, ...]:
        """The columns to learn."""
        return self.labels or ((self.target,) if self.target else ())

    @property
    def given_types(self) -> dict[str, ColumnType]:
        """Types of columns that are not detected."""
        return {**self.types, **dict.fromkeys(self.text, _TEXT)}


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
    dates: tuple[DateFeature, ...] = may_change(())
    """Columns of dates, whose numbers are the last of `numbers`."""
    texts: tuple[str, ...] = may_change(())
    """Columns of free text."""
    labels: Labels | None = may_change(None)
    """What is learned instead of the target, if a row may have several labels."""

    @property
    def outputs(self) -> int:
        """How many outputs a model has."""
        return len(self.labels.names if self.labels else self.target.classes) or 1

    @property
    def number_columns(self) -> int:
        """Numbers of a row, including the flags for missing ones."""
        return sum(feature.inputs for feature in self.numbers)

    @property
    def codes(self) -> tuple[int, ...]:
        """For each category the number of its codes."""
        return tuple(feature.number_of_codes for feature in self.categories)

    @property
    def plain_numbers(self) -> tuple[NumberFeature, ...]:
        """The numbers that are columns of the CSV."""
        return self.numbers[: len(self.numbers) - sum(len(one.parts) for one in self.dates)]

    @property
    def types(self) -> dict[str, ColumnType]:
        """The type of every column that is read."""
        types: dict[str, ColumnType] = {feature.name: "number" for feature in self.plain_numbers}
        types |= {feature.name: "category" for feature in self.categories}
        types |= dict.fromkeys((*(feature.name for feature in self.dates), *self.texts), "text")
        return types | (self.labels.types if self.labels else {self.target.name: self.target.type})

    @property
    def verbatim(self) -> tuple[str, ...]:
        """Categories of words, whose cells are taken literally in another CSV, too."""
        values = {feature.name: feature.values for feature in self.categories} | {self.target.name: self.target.classes}
        return tuple(name for name, words in values.items() if are_words(words))


class CsvRows:
    """Rows of a CSV as model inputs: those of its index where `kept`, of shape (rows of the index,), is true.

    `left_out` are the bad ones among the others, and `folds` those of all rows of the index, below 32,768.
    """

    rows_in_class_order: npt.NDArray[np.int32] | Rows

    def __init__(self, index: CsvIndex, fit: CsvFit, kept: Mask, left_out: BadRows, folds: Folds | None = None) -> None:
        self.fit, self.left_out = fit, left_out
        self._folds = None if folds is None else folds[kept]
        codes_of = {one.name: one.codes_of(index.codes[one.name]) for one in fit.categories}
        # Code 0 is of an index that does not exist.
        known = {name: {value: code - 1 for value, code in codes.items()} for name, codes in codes_of.items()}
        labels = fit.labels
        apart = {*(one.name for one in fit.dates), *fit.texts, *(labels.columns if labels else ())}
        columns = [name for name in fit.types if name in index.dialect.names and name not in apart]
        without = np.flatnonzero(~kept)
        self.table = CsvTable(
            index, columns, categories={**known, fit.target.name: fit.target.classes}, without=without
        )
        self._dates = DateRows(index, fit.dates, without) if fit.dates else None
        self._texts = TextRows(index, fit.texts, without) if fit.texts else None
        self._has_targets = fit.target.name in columns
        self._labels = LabelRows(index, labels, without) if labels else None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def index(self) -> CsvIndex:
        """The index of the CSV."""
        return self.table.index

    def __getitems__(self, rows: Rows) -> Columns:
        """`numbers` float64 (batch, numbers), `categories` int64 (batch, categories), and `targets` (batch,).

        Numbers are not standardised, NaN where missing; category code 0 is missing or unknown. Targets are there if the
        CSV has them: the int64 index of a class, a standardised number as float32, or 0 and 1 for each label, float32
        (batch, labels). If there are columns of text,
        `texts` are their pieces, int32 (batch, texts, pieces), 0 where there is none. Where there are folds, `fold` is
        that of each row, int64 (batch,).
        """
        fit = self.fit
        # The target is the last column of its type.
        numbers, categories = self.table.number_matrix(rows), self.table.category_matrix(rows)
        learned = numbers[:, : len(fit.plain_numbers)]
        features: dict[str, npt.NDArray[Any]] = {
            "numbers": learned if self._dates is None else np.hstack([learned, self._dates.numbers(rows)]),
            "categories": categories[:, : len(fit.categories)] + 1,
        }
        if self._folds is not None:
            features["fold"] = self._folds[rows].astype(np.int64)
        if self._texts is not None:
            features["texts"] = self._texts.pieces(rows)
        if self._labels is not None:
            features["targets"] = self._labels.targets(rows)
        if not self._has_targets:
            return features
        targets: npt.NDArray[Any] = (numbers if fit.target.type == "number" else categories)[:, -1]
        if not fit.target.classes:
            targets = fit.target.standardised(targets)
        elif fit.target.type == "number":
            targets = np.searchsorted([float(name) for name in fit.target.classes], targets)
        return {**features, "targets": targets}

    def labels(self, rows: Rows) -> npt.NDArray[np.int64]:
        """The number of the class of each row, int64 (batch,)."""
        found: npt.NDArray[np.int64] = self.__getitems__(rows)["targets"]
        return found


@dataclass(frozen=True)
class TrainingTable(TrainingCsv):
    """The CSV to train on, its rows split, and whether its target is to be classified."""

    data: CsvData
    classifies: bool
    folds: Folds | None = None
    """The fold of each row of the index, if there are any."""


def open_table(data: CsvData, seed: int, *, content: str | None = None) -> TrainingTable:
    """The CSV to train on; `content` is that of the run's start.

    Raises:
        DataError: if the CSV or too many of its rows cannot be used, or if it is not what was fitted on.
    """
    index, classifies = _train_index(data, content)
    bad = _faults(index, {column.name for column in index.columns} - set(data.ignore))
    left_out = data.rows_to_leave_out(bad, index)
    classes = data.target if classifies else None
    parts = data.parts(index, left_out, seed, classes=classes)
    if data.folds is None:
        return TrainingTable(data, seed, index, bad, parts, classifies)
    rows = np.flatnonzero(parts.train)
    folds = fold_rows(index, rows, data.split_by, folds=data.folds, seed=seed, classes=classes)
    # Each row is evaluated on, by the model that was not trained on it.
    parts = replace(parts, val=parts.train)
    return TrainingTable(data, seed, index, bad, parts, classifies, folds.astype(np.int16))


def fit_csv(data: CsvData, seed: int) -> tuple[CsvFit, TrainingTable]:
    """Means, deviations, vocabularies and classes of the training rows, in one pass over the index; and the table.

    Prints the columns that are left out.

    Raises:
        DataError: if the CSV, a column of it or too many of its rows cannot be used.
        UserError: if `data` names no CSV or no target, or two ways to evaluate.
    """
    data.check()
    table = open_table(data, seed)
    index = table.index
    print(f"{index.csv}: {index.described()}")
    reports = statistics_of(index, index.dialect.names, table.parts.train)
    train = table.parts.train
    labels = None
    if data.labels:
        labels, target = Labels.of_columns(index, data.labels), Target("", "number")
    elif data.label_separator:
        # Including those that occur only in held-out rows.
        labels = Labels.of_lists(index, data.target, data.label_separator, table.parts.labeled)
        target = Target("", "number")
    elif table.classifies:
        # Including classes that occur only in held-out rows.
        labeled = table.parts.labeled
        reports |= statistics_of(index, [data.target], labeled)
        target = Target.of_classes(index, reports[data.target], labeled)
        if data.task == "auto" and seem_to_count(index, target, train):
            print(
                visible(
                    f"{index.csv}: column '{data.target}' is learned as {len(target.classes)} classes, "
                    f"{target.classes[0]} to {target.classes[-1]}; if it counts or rates, predict a number with "
                    "--data.task regression"
                )
            )
    else:
        levels = quantiles_of(index, [data.target], train, seed)[data.target]
        median = levels[len(levels) // 2] if levels else 0.0
        target = Target.of_numbers(index, reports[data.target], train, median, data.target_scale)
        if target.log_unit:
            print(visible(f"{index.csv}: learns the logarithm of column '{data.target}', and predicts the column"))
    numbers, categories, dates = features_of(table, reports)
    rows = int(train.sum())
    fit = CsvFit(index.content, target, numbers, categories, index.decimal, rows, dates, data.text, labels)
    return fit, table


def csv_rows(data: CsvData, fit: CsvFit, split: Split, seed: int, opened: TrainingTable | None = None) -> CsvRows:
    """The rows of a split; without a CSV or a share to evaluate on, `val` has none.

    The training CSV is read again unless it is `opened`, with the same settings.

    Raises:
        DataError: if a CSV, a column of it or too many of its rows cannot be used, or if it is not what was fitted on.
    """
    other: dict[Split, str | None] = {"train": None, "val": data.val_csv, "test": data.test_csv}
    if (csv := other[split]) is not None:
        return _val_rows(data, fit, csv)
    table = opened
    if table is None or not table.is_of(data, seed):
        table = open_table(data, seed, content=fit.content)
    folds = None if split == "test" else table.folds
    return CsvRows(table.index, fit, table.parts.of(split), table.bad, folds)


def csv_inputs(data: CsvData, fit: CsvFit, csv: str) -> CsvRows:
    """The rows of a CSV to predict for, whether it has a target or not.

    Raises:
        DataError: if it cannot be read, or lacks a column that the model was trained with.
    """
    fit = replace(fit, target=replace(fit.target, name=""), labels=None)
    types = {name: kind for name, kind in fit.types.items() if name}
    # It may have another decimal mark than that given for the training CSV.
    own = replace(data, decimal=None)
    options = own.options(types=types, label_columns=(), usual_decimal=fit.decimal, verbatim=fit.verbatim)
    index = index_csv(csv, data.cache, options)
    return CsvRows(index, fit, np.ones(index.rows, bool), _faults(index, types))


def _val_rows(data: CsvData, fit: CsvFit, csv: str) -> CsvRows:
    options = data.options(
        types=fit.types,
        label_columns=(data.target,) if fit.labels is None else fit.labels.label_columns,
        usual_decimal=fit.decimal,
        verbatim=fit.verbatim,
    )
    index = index_csv(csv, data.cache, options)
    bad = _faults(index, fit.types)
    if fit.labels is not None:
        bad += fit.labels.unknown(index, data.train_csv)
    if fit.target.classes:
        bad += unknown_labels(index, fit.target.name, fit.target.classes, data.train_csv)
    kept = np.ones(index.rows, bool)
    kept[data.rows_to_leave_out(bad, index)] = False
    return CsvRows(index, fit, kept, bad)


def _train_index(data: CsvData, content: str | None) -> tuple[CsvIndex, bool]:
    """The training CSV, and whether its target is to be classified; a target of another type is read again."""
    labels: dict[str, ColumnType] = dict.fromkeys(data.labels, "category")
    if data.label_separator:
        labels = {data.target: "text"}
    filled = (data.target,) if not labels else data.labels
    index = data.train_index(data.options(types=data.given_types | labels, label_columns=filled), content=content)
    for name in data.ignore:
        index.column(name)
    if labels:
        return index, False
    report = index.column(data.target)
    few = report.type == "number" and whole_numbers(index, data.target, np.ones(index.rows, bool)) is not None
    if data.task != "auto":
        classifies = data.task == "classification"
    elif data.target in data.types or report.values is None:
        classifies = few or report.type == "category"
    else:
        few_or_named = len(report.values) <= MOST_WHOLE_CLASSES or are_identifiers(report.values)
        classifies = few_or_named or not are_whole(report.values)
    kind: ColumnType = "category" if classifies else "number"
    if report.type == kind or (classifies and few):
        return index, classifies
    types: Mapping[str, ColumnType] = {**data.given_types, data.target: kind}
    return data.train_index(data.options(types=types, label_columns=(data.target,))), classifies


def _faults(index: CsvIndex, read: Collection[str]) -> BadRows:
    return index.bad_rows().without_numbers_of(column.name for column in index.columns if column.name not in read)
