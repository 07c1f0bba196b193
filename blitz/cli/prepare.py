"""Check a table before training on it: its format, the content of its columns, and its bad rows.

    blitz prepare TRAIN.csv [flags]

TRAIN.csv is a path or a URI of a CSV, JSON lines, a Parquet or an Arrow file, or of several: a pattern in quotes, a
folder, or a list with commas. The index that training reads is built and kept in --out, as are a list of all bad rows,
<name>.bad_rows.csv, and a page about the columns, <name>.html. Exits with code 2 if training would refuse the rows.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from blitz.cli.command_line import SEVERAL_FILES, parse
from blitz.data.csv.profile import Part, profile_of
from blitz.data.csv.reading.bad_rows import BadRows, BadRowsPolicy
from blitz.data.csv.reading.columns import ColumnReport, ColumnType, are_words
from blitz.data.csv.reading.dialect import Header
from blitz.data.csv.reading.encoding import Encoding
from blitz.data.csv.reading.image_files import ImageCheck, check_images
from blitz.data.csv.reading.index import CsvIndex, index_csv, make_cache
from blitz.data.csv.reading.numbers import Decimal
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.splits import SplitBy, split_rows
from blitz.data.csv.table import unknown_labels
from blitz.errors import UserError, require
from blitz.report.table_page import table_page
from blitz.storage import open_location, write_whole
from blitz.visible import visible

PROG = "blitz prepare"

_SHOWN_VALUES = 8
_SHOWN_FAULTS = 10


@dataclass(frozen=True)
class PrepareSettings:
    """The flags of `blitz prepare`."""

    label_column: tuple[str, ...] = ()
    """The columns to learn: one, or several of numbers. None of their cells may be missing."""
    image_column: str | None = None
    """Paths or URIs of images."""
    image_root: str | None = None
    """Folder that relative image paths start from; by default the CSV's."""
    image_check: ImageCheck = "whole"
    """Whether to check only that images exist, or also their first and last bytes, or to decode them all."""
    val_csv: str | None = None
    """Another CSV to evaluate on: its columns must have the same types, and its labels occur in the first."""
    val_fraction: float | None = None
    """On the page, beside the rows to train on, this share of the rows to evaluate on, instead of another CSV."""
    split: str = "auto"
    """How rows are chosen for that share, as by --data.split of training."""
    page: bool = True
    """Write a page about the columns: what they hold, what they say about the first label, and how the two parts
    differ."""
    delimiter: str | None = None
    """The delimiter between cells; detected by default."""
    quote: str | None = None
    """The quote character; detected by default."""
    encoding: Encoding | None = None
    """The encoding; detected by default."""
    header: Header = "auto"
    """Whether the first line names the columns; auto says yes unless all its cells are numbers."""
    comment: str | None = None
    """The start of lines that are left out, such as '#'."""
    skip_lines: tuple[int, ...] = ()
    """Numbers of lines that are left out, such as a title above the header or units below it: 1 2 4."""
    decimal: Decimal | None = None
    """The decimal mark, . or ,; detected by default."""
    types: dict[str, ColumnType] = field(default_factory=dict)
    """Types of columns whose detected type is wrong: --types zip category name text."""
    bad_rows: BadRowsPolicy = "fail"
    """Whether bad rows are an error, or are left out."""
    max_bad_fraction: float = 0.01
    """With --bad-rows skip, more bad rows than this are still an error."""
    out: str = "runs/prepared"
    """Folder for the index and the bad rows."""


def main(words: list[str]) -> None:
    """The command `prepare`."""
    if not words or words[0].startswith("-"):
        print(f"{__doc__}\nFlags: those of `{PROG} TRAIN.csv --help`.")
        return
    require(
        len(words) == 1 or words[1].startswith("-"),
        f"name one table; {words[0]} is followed by {' '.join(words[1:2])}: {SEVERAL_FILES}",
    )
    prepare(words[0], parse(PrepareSettings(), words[1:], prog=f"{PROG} {words[0]}", description=__doc__ or ""))


def prepare(csv: str, settings: PrepareSettings) -> None:
    """Index the CSVs and print a report on each.

    Raises:
        DataError: if a CSV cannot be read, or its bad rows are more than the settings allow.
    """
    options = CsvOptions(
        delimiter=settings.delimiter,
        quote=settings.quote,
        encoding=settings.encoding,
        header=settings.header,
        comment=settings.comment,
        skip_lines=settings.skip_lines,
        flags="--",
        types=settings.types,
        label_columns=settings.label_column,
        image_column=settings.image_column,
        decimal=settings.decimal,
    )
    make_cache(settings.out, flag="--out")
    require(
        settings.val_csv is None or settings.val_fraction is None,
        "--val-csv and --val-fraction are two ways to name the rows to evaluate on; give one of them",
    )
    require(
        settings.split == "auto" or settings.val_fraction is not None,
        f"--split {settings.split} is for --val-fraction; give it, too",
    )
    fraction = settings.val_fraction
    require(fraction is None or 0 < fraction < 1, f"--val-fraction is {fraction}; it must be between 0 and 1")
    train = index_csv(csv, settings.out, options)
    found = [(train, _bad_rows(train, settings))]
    if settings.val_csv is not None:
        types = {column.name: column.type for column in train.columns}
        words = tuple(name for name, values in train.codes.items() if are_words(values))
        more = replace(options, types=types, usual_decimal=train.decimal, verbatim=words)
        val = index_csv(settings.val_csv, settings.out, more)
        known = {name: train.column(name).values for name in settings.label_column}
        unknown = [unknown_labels(val, name, values, csv) for name, values in known.items() if values is not None]
        found.append((val, sum(unknown, start=_bad_rows(val, settings))))
    unwritten = []
    for number, (index, bad) in enumerate(found):
        _print_index(index, settings.label_column)
        unwritten += _print_bad(bad, settings, suffix=".val" if number else "")
    require(not unwritten, "; ".join(unwritten))
    if settings.page:
        print(f"{_write_page([index for index, _ in found], [bad for _, bad in found], settings)}\n")
    for index, bad in found:
        bad.enforce_policy(settings.bad_rows, total_rows=index.total_rows, max_bad_fraction=settings.max_bad_fraction)


def _write_page(indexes: list[CsvIndex], bad: list[BadRows], settings: PrepareSettings) -> str:
    """Write the page about the columns; returns its path, or why there is none."""
    good = [np.ones(index.rows, bool) for index in indexes]
    for mask, faults in zip(good, bad, strict=True):
        mask[faults.rows()] = False
    train, other, target = indexes[0], None, next(iter(settings.label_column), None)
    if len(indexes) > 1:
        other = Part(indexes[1], good[1])
    elif settings.val_fraction is not None:
        classes = target if target is not None and train.column(target).values is not None else None
        rows, by = np.flatnonzero(good[0]), SplitBy.parsed(settings.split)
        parts = split_rows(train, rows, by, val=settings.val_fraction, test=None, seed=0, classes=classes)
        good[0], other = parts.train, Part(train, parts.val)
    if not good[0].any() or (other is not None and not other.kept.any()):
        return "no page: a part has no good row"
    page = bad[0].listed_in(settings.out).with_name(f"{bad[0].stem}.html")
    try:
        text = table_page(profile_of(Part(train, good[0]), other, target, seed=0)).html()
    except UserError as error:
        # Without the extra for reports.
        return f"no page: {error}"
    write_whole(*open_location(page), text.encode())
    return f"a page about the columns: {page}"


def _bad_rows(index: CsvIndex, settings: PrepareSettings) -> BadRows:
    bad = index.bad_rows()
    if settings.image_column is not None:
        bad += check_images(index, settings.image_column, settings.image_root, settings.image_check)
    return bad


def _print_index(index: CsvIndex, labels: tuple[str, ...]) -> None:
    print(f"{index.csv}: {index.total_rows:,} rows, {len(index.columns)} columns")
    print(f"{index.described()}\n")
    width = max(6, *(len(visible(column.name)) for column in index.columns))
    print(f"{'column':{width}}  type      missing  values")
    for column in index.columns:
        print(f"{visible(column.name):{width}}  {column.type:8}  {column.missing:7,}  {summary(column)}")
        if column.note:
            print(f"{'':{width}}  {visible(column.note)}")
    for name in labels:
        column = index.column(name)
        if column.values is not None and column.counts is not None:
            print(f"\n{visible(name)}: {len(column.values)} classes")
            for value, count in zip(column.values, column.counts, strict=True):
                print(f"  {visible(value):{width}}  {count:9,}  {count / max(1, column.count):6.1%}")
    print()


def summary(column: ColumnReport) -> str:
    """What a column holds: its first values, or the range of its numbers."""
    if column.values is not None:
        more = f", and {len(column.values) - _SHOWN_VALUES} more" if len(column.values) > _SHOWN_VALUES else ""
        return f"{len(column.values)}: {', '.join(map(visible, column.values[:_SHOWN_VALUES]))}{more}"
    if column.count and column.type == "number":
        return f"{column.min:g} to {column.max:g}, mean {column.mean:g}, std {column.std:g}"
    return ""


def _print_bad(bad: BadRows, settings: PrepareSettings, *, suffix: str) -> list[str]:
    """Print the bad rows and write their list; returns a message if it cannot be written."""
    if not len(bad):
        print("no bad rows\n")
        return []
    rows, unwritten = "1 bad row" if len(bad) == 1 else f"{len(bad):,} bad rows", []
    try:
        listed = f", listed in {bad.list_in(settings.out, suffix=suffix)}"
    except OSError as error:
        listed, file = "", bad.listed_in(settings.out, suffix=suffix)
        unwritten.append(f"{file} cannot be written ({error.strerror}); name another folder with --out")
    print(f"{rows}{listed}; the first:")
    print("".join(f"  {visible(message)}\n" for message in bad.messages(_SHOWN_FAULTS)))
    return unwritten
