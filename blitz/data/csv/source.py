"""The CSVs that a run reads: their settings, and the parts of their rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from blitz.data.csv.reading.bad_rows import BadRows, BadRowsPolicy
from blitz.data.csv.reading.columns import ColumnType
from blitz.data.csv.reading.dialect import Header
from blitz.data.csv.reading.encoding import Encoding
from blitz.data.csv.reading.head import Head, read_head
from blitz.data.csv.reading.index import CsvIndex, index_csv, make_cache
from blitz.data.csv.reading.numbers import Decimal
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.reading.source_files import files_of
from blitz.data.csv.splits import Mask as Mask
from blitz.data.csv.splits import Parts, SplitBy, split_rows
from blitz.data.order import Rows
from blitz.errors import DataError, require
from blitz.fields import may_change


@dataclass(frozen=True)
class CsvSource:
    """The settings common to all recipes over a CSV: the files, how to read them, and what to do about bad rows."""

    train_csv: str = may_change("")
    """The table to train on: a path or a URI of a CSV, JSON lines, a Parquet or an Arrow file; or several with the same
    columns, as a pattern (in quotes), a folder, or a list with commas."""
    val_csv: str | None = may_change(None)
    """Another table, to evaluate on."""
    val_fraction: float | None = None
    """The share of the rows to evaluate on, instead of a CSV."""
    test_csv: str | None = may_change(None)
    """A CSV of test rows, which influence neither the best checkpoint nor a sweep; the best checkpoint is evaluated on
    them at the end of the run, and by blitz evaluate --split test."""
    test_fraction: float | None = None
    """The share of the rows to test on, instead of a CSV."""
    split: str = "auto"
    """How rows are chosen for these shares: random, or stratified by class; group:COLUMN keeps rows of the same value
    together; time:COLUMN takes the latest. auto is stratified for classes, otherwise random."""
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    """Types of columns whose detected type is wrong: --data.types zip category age number."""
    delimiter: str | None = may_change(None)
    """The delimiter between cells; detected by default."""
    quote: str | None = may_change(None)
    """The quote character; detected by default."""
    encoding: Encoding | None = may_change(None)
    """The encoding; detected by default."""
    header: Header = may_change("auto")
    """Whether the first line names the columns; auto says yes unless all its cells are numbers."""
    comment: str | None = may_change(None)
    """The start of lines that are left out, such as '#'."""
    skip_lines: tuple[int, ...] = may_change(())
    """Numbers of lines that are left out, such as a title above the header or units below it: 1 2 4."""
    decimal: Decimal | None = may_change(None)
    """The decimal mark, . or ,; detected by default."""
    bad_rows: BadRowsPolicy = may_change("fail")
    """Whether bad rows are an error, or are left out and listed in bad_rows.csv of the run."""
    max_bad_fraction: float = may_change(0.01)
    """With --data.bad-rows skip, more bad rows than this are still an error."""
    cache: str = may_change("runs/prepared")
    """Folder for the indexes of the CSVs; a node of a cluster that does not share it makes its own."""

    def __post_init__(self) -> None:
        for name, fraction in (("val", self.val_fraction), ("test", self.test_fraction)):
            within = fraction is None or 0 < fraction < 1
            require(within, f"--data.{name}-fraction is {fraction}; it must be between 0 and 1")
        SplitBy.parsed(self.split)
        worst = self.max_bad_fraction
        require(0 <= worst <= 1, f"--data.max-bad-fraction is {worst}; it must be from 0 to 1")

    @property
    def train_source(self) -> str:
        """The path or URI of the rows to train on."""
        return self.train_csv

    @property
    def val_source(self) -> str | None:
        """The path or URI of separate rows to evaluate on."""
        return self.val_csv

    @property
    def split_by(self) -> SplitBy:
        """How rows are chosen for the parts."""
        return SplitBy.parsed(self.split)

    @property
    def has_test(self) -> bool:
        """Whether there are rows to test on."""
        return self.test_csv is not None or self.test_fraction is not None

    @property
    def has_shares(self) -> bool:
        """Whether rows of the training CSV are divided."""
        return self.val_fraction is not None or self.test_fraction is not None

    def check(self) -> None:
        """Refuse what cannot be trained on.

        Raises:
            UserError: if no CSV is named, or two ways to evaluate or to test are, or a split of no shares.
        """
        require(bool(self.train_source), "name the CSV to train on with --data.train-csv FILE")
        flag = "--data.val-csv" if self.val_csv else "--data.val-dir"
        require(
            self.val_source is None or self.val_fraction is None,
            f"{flag} and --data.val-fraction are two ways to evaluate; give one of them",
        )
        require(
            self.test_csv is None or self.test_fraction is None,
            "--data.test-csv and --data.test-fraction are two ways to test; give one of them",
        )
        require(
            self.split == "auto" or self.has_shares,
            f"--data.split {self.split} is for --data.val-fraction and --data.test-fraction; give one of them",
        )

    def options(
        self,
        *,
        types: Mapping[str, ColumnType],
        label_columns: tuple[str, ...],
        image_column: str | None = None,
        usual_decimal: Decimal = ".",
        verbatim: tuple[str, ...] = (),
    ) -> CsvOptions:
        """How the CSVs are read."""
        return CsvOptions(
            delimiter=self.delimiter,
            quote=self.quote,
            encoding=self.encoding,
            header=self.header,
            comment=self.comment,
            skip_lines=self.skip_lines,
            types=types,
            label_columns=label_columns,
            image_column=image_column,
            decimal=self.decimal,
            usual_decimal=usual_decimal,
            verbatim=verbatim,
        )

    def read_head(self) -> Head:
        """The first rows of the table to train on, from its first file.

        Raises:
            DataError: if it is not there, or has no header.
        """
        first = files_of(self.train_source, make_cache(self.cache, flag="--data.cache"))[0]
        return read_head(first, self.options(types={}, label_columns=()))

    def train_index(self, options: CsvOptions, *, content: str | None = None) -> CsvIndex:
        """The index of the CSV to train on.

        Raises:
            DataError: if it cannot be used, or if its `content` has changed since the run was started.
        """
        index = index_csv(self.train_source, self.cache, options)
        if content not in (None, index.content):
            raise DataError(f"{index.csv} has changed since the run was started; restore it, or start another run")
        return index

    def rows_to_leave_out(self, bad: BadRows, index: CsvIndex) -> Rows:
        """Rows of the index to leave out; an error if there are more than allowed."""
        return bad.enforce_policy(
            self.bad_rows, total_rows=index.total_rows, max_bad_fraction=self.max_bad_fraction, flags="--data."
        )

    def parts(self, index: CsvIndex, bad: Rows, seed: int, *, classes: str | None = None) -> Parts:
        """The parts of the training CSV's index; `classes` is the column of classes, if one is to be learned.

        `bad` must follow from the CSV's bytes alone, so that a resumed run, or an evaluation, finds the same parts.

        Raises:
            UserError: if the rows cannot be split as the settings say.
        """
        good = np.ones(index.rows, bool)
        good[bad] = False
        return split_rows(
            index,
            np.flatnonzero(good),
            self.split_by,
            val=self.val_fraction,
            test=self.test_fraction,
            seed=seed,
            classes=classes,
        )


@dataclass(frozen=True)
class TrainingCsv:
    """The CSV to train on, opened once for the fit and the data sets of a run."""

    data: CsvSource
    seed: int
    index: CsvIndex
    bad: BadRows
    """The rows that are in no part."""
    parts: Parts
    """The rows of the index that are trained on and, if they come from the same CSV, evaluated and tested on."""

    def is_of(self, data: CsvSource, seed: int) -> bool:
        """Whether these are the settings that the CSV was opened with."""
        return (self.data, self.seed) == (data, seed)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # Pickled as None: a worker gets the data sets beside the recipe, and does not need masks over all rows.
        return type(None), ()
