"""Reading pairs of sentences from files of lines or columns of a CSV."""

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow.fs

from blitz.data.csv.reading.bad_rows import BadRows, join_faults
from blitz.data.csv.reading.columns import ColumnType
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.reading.row_names import RowNames
from blitz.data.csv.source import CsvSource, Mask
from blitz.data.csv.table import CsvTable
from blitz.data.order import Rows
from blitz.data.plan import Split
from blitz.errors import DataError, require
from blitz.fields import may_change
from blitz.storage import Folder

_AT_ONCE = 4096


@dataclass(frozen=True)
class PairData(CsvSource):
    """The sentences and their translations: lines of two files, or columns of a CSV."""

    root: str | None = may_change(None)
    """Folder of files such as train.en and train.de, also packed as train.en.gz: a line of one is the translation of
    the same line of the other. Or give --data.train-csv."""
    source: str = "en"
    """The source language: the suffix of the files, or the column of the CSV."""
    target: str = "de"
    """The target language, likewise."""
    test: str = may_change("test_2016_flickr")
    """In --data.root, the files for blitz evaluate --split test."""
    vocabulary: int = 4000
    """Tokens, of both languages together: pieces of words that are learned from the training rows."""
    max_tokens: int = 64
    """Longer sentences are cut to so many tokens, and translations end there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.vocabulary >= 300, f"--data.vocabulary is {self.vocabulary}; it must be at least 300")
        require(self.max_tokens >= 2, f"--data.max-tokens is {self.max_tokens}; it must be at least 2")
        require(self.source != self.target, f"--data.source and --data.target are both {self.source}")

    def check(self) -> None:
        """Refuse settings that name no sentences, or name them twice.

        Raises:
            UserError: if it does.
        """
        if self.root is None:
            require(
                bool(self.train_csv),
                f"name the sentences to train on: --data.root DIR with train.{self.source} and train.{self.target}, or "
                f"--data.train-csv FILE with columns --data.source and --data.target",
            )
            super().check()
        else:
            several = self.train_csv or self.val_csv or self.val_fraction or self.has_test
            require(not several, "--data.root has files of its own to train and evaluate on; leave out those of CSVs")


class Sentences(Protocol):
    """Pairs of sentences, or sentences alone."""

    def __len__(self) -> int:
        """Number of pairs."""

    def texts(self, rows: Rows) -> tuple[list[str], list[str] | None]:
        """The sources of rows, and the targets if they are known."""

    @property
    def content(self) -> str:
        """A hash of the sentences."""

    @property
    def left_out(self) -> BadRows:
        """Bad rows of a CSV, which are not among them."""


def each_pair(sentences: Sentences) -> Iterator[tuple[str, str]]:
    """All pairs, in order."""
    for first in range(0, len(sentences), _AT_ONCE):
        sources, targets = sentences.texts(np.arange(first, min(first + _AT_ONCE, len(sentences))))
        assert targets is not None
        yield from zip(sources, targets, strict=True)


class Lines:
    """Sentences in memory. Where there are targets, pairs of which one is blank are left out: `blank` of them."""

    def __init__(self, sources: Sequence[str], targets: Sequence[str] | None = None) -> None:
        digest = hashlib.sha256("\n".join([*sources, *(targets or ())]).encode())
        self.content, self.left_out, self.blank = digest.hexdigest(), join_faults(RowNames.single(""), []), 0
        if targets is not None:
            pairs = [pair for pair in zip(sources, targets, strict=True) if pair[0].strip() and pair[1].strip()]
            self.blank = len(sources) - len(pairs)
            sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
        self._sources, self._targets = sources, targets

    def __len__(self) -> int:
        return len(self._sources)

    def texts(self, rows: Rows) -> tuple[list[str], list[str] | None]:
        """See `Sentences`."""
        numbers = rows.tolist()
        targets = self._targets
        return [self._sources[i] for i in numbers], None if targets is None else [targets[i] for i in numbers]


class CsvSentences:
    """Columns of a CSV: rows of its index where `kept` is true."""

    def __init__(self, index: CsvIndex, columns: Sequence[str], kept: Mask, left_out: BadRows) -> None:
        self.table = CsvTable(index, columns, without=np.flatnonzero(~kept))
        self.content, self.left_out, self._columns = index.content, left_out, columns

    def __len__(self) -> int:
        return len(self.table)

    def texts(self, rows: Rows) -> tuple[list[str], list[str] | None]:
        """See `Sentences`."""
        cells = self.table.__getitems__(rows)
        sources, *targets = ([str(cell) for cell in cells[name]] for name in self._columns)
        return sources, targets[0] if targets else None


def sentences_of(data: PairData, split: Split, seed: int, *, content: str | None = None) -> Sentences:
    """The pairs of a split; the training rows must have the hash `content`. `val` may have none.

    Raises:
        DataError: if files are missing, differ in length or have changed, or a CSV cannot be used.
        UserError: if there is no such split.
    """
    data.check()
    if data.root is not None:
        lines = _lines_of(data, data.root, {"train": "train", "val": "val", "test": data.test}[split])
        if split == "train" and content not in (None, lines.content):
            raise DataError(f"{data.root} has changed since the run was started; restore it, or start another run")
        return lines
    if split == "test":
        require(data.has_test, "name the CSV to test on with --data.test-csv FILE, or --data.test-fraction")
    other = {"train": None, "val": data.val_csv, "test": data.test_csv}[split]
    if other is not None:
        return csv_sentences(data, other, (data.source, data.target))
    index = data.train_index(_options(data, (data.source, data.target)), content=content)
    bad = _faults(index, data)
    parts = data.parts(index, data.rows_to_leave_out(bad, index), seed)
    return CsvSentences(index, (data.source, data.target), parts.of(split), bad)


def csv_sentences(data: PairData, csv: str, columns: tuple[str, ...], *, keep_bad: bool = False) -> CsvSentences:
    """Columns of a CSV; bad rows are left out, unless they are kept.

    Raises:
        DataError: if it cannot be read, lacks a column, or has more bad rows than are allowed.
    """
    index = index_csv(csv, data.cache, _options(data, columns))
    bad, kept = _faults(index, data), np.ones(index.rows, bool)
    if not keep_bad:
        kept[data.rows_to_leave_out(bad, index)] = False
    return CsvSentences(index, columns, kept, bad)


def _options(data: PairData, columns: tuple[str, ...]) -> CsvOptions:
    text: ColumnType = "text"
    return data.options(types=dict.fromkeys(columns, text), label_columns=columns)


def _faults(index: CsvIndex, data: PairData) -> BadRows:
    read = (data.source, data.target)
    return index.bad_rows().without_numbers_of(name for name in index.dialect.names if name not in read)


def _lines_of(data: PairData, root: str, name: str) -> Lines:
    sources, targets = (read_lines(root, f"{name}.{language}") for language in (data.source, data.target))
    if len(sources) != len(targets):
        raise DataError(
            f"{root}: {name}.{data.source} has {len(sources):,} lines and {name}.{data.target} {len(targets):,}; "
            "each line of one must be the translation of the same line of the other"
        )
    return Lines(sources, targets)


def read_lines(root: str, name: str) -> list[str]:
    """The lines of a file in a folder, which may be packed with gzip.

    Raises:
        DataError: if it is missing or is no text.
    """
    folder = Folder(root)
    for ending in ("", ".gz"):
        files, path = folder.find(name + ending)
        if files.get_file_info(path).type == pyarrow.fs.FileType.File:
            with files.open_input_stream(path, compression=None) as stream:
                return _lines(stream.read(), f"{root}/{name}{ending}")
    raise DataError(f"{root} has neither {name} nor {name}.gz; name its folder with --data.root DIR")


def _lines(data: bytes, name: str) -> list[str]:
    try:
        return split_lines((gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8-sig"))
    except (OSError, EOFError) as error:
        raise DataError(f"{name} cannot be unpacked: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not encoded in UTF-8: {error}") from error


def split_lines(text: str) -> list[str]:
    """Lines of a text; unlike in `str.splitlines`, only \\n ends a line."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines
