"""A CSV as a memory-mapped Arrow index, made in one streaming pass and cached by the file's content.

<cache>/<key>.arrow       the columns: float64 (NaN where missing or bad), int32 codes (-1 where missing), or
                          text; and the line of every row
<cache>/<key>.bad.arrow   the bad rows
<cache>/<key>.json        the report; written last: without it a key counts as absent
<cache>/<key>.seen.json   size, mtime, content hash and encoding of a path when last read
<cache>/<content>.csv     the CSV equivalent to a folder of class folders
"""

import contextlib
import errno
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute as pc
import pyarrow.fs
from filelock import FileLock

from blitz.data.csv.class_folders import listing
from blitz.data.csv.reading.bad_rows import BadRows, write_faults
from blitz.data.csv.reading.columns import ColumnReport
from blitz.data.csv.reading.compressed import CsvBytes, require_file
from blitz.data.csv.reading.dialect import Dialect
from blitz.data.csv.reading.encoding import EncodingScan, Guess
from blitz.data.csv.reading.label_conflicts import conflicting_labels
from blitz.data.csv.reading.layout import LINE, unpack
from blitz.data.csv.reading.numbers import Decimal, Writing
from blitz.data.csv.reading.scan import CsvOptions, read_csv
from blitz.errors import DataError, first_line
from blitz.storage import absolute, fingerprint, open_location, replacing
from blitz.uris import is_uri

_FORMAT = 5
_HASHED_BYTES = 1 << 20
_RACY_S = 2.0
_REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
}
"""Errors that mean that a folder cannot be written."""


@dataclass(frozen=True)
class CsvIndex:
    """A CSV that has been read: the path of its index, and the report on it."""

    csv: str
    """The CSV's path or URI as it was given, or that of the folder of class folders, which messages name."""
    path: str
    """The Arrow IPC file. Bad rows are in it, too, except for ragged ones."""
    dialect: Dialect
    columns: tuple[ColumnReport, ...]
    """Statistics of all good cells, in bad rows or not."""
    codes: Mapping[str, tuple[str, ...]]
    """For each category column the value of each of its codes."""
    rows: int
    """Rows in the index."""
    total_rows: int
    """Rows in the CSV, ragged ones included."""
    content: str
    """SHA-256 of the CSV's bytes, decompressed, hexadecimal."""
    options: CsvOptions
    """The options with which it was read."""
    compression: str | None = None
    """How the CSV is compressed."""
    writings: Mapping[str, Writing] = field(default_factory=dict)
    """How the numbers of each number column are written."""

    def described(self) -> str:
        """The CSV's compression and dialect, given or detected."""
        return f"{self.compression}, {self.dialect.described()}" if self.compression else self.dialect.described()

    def on_this_node(self) -> "CsvIndex":
        """This index on this node: rebuilt if another node made it in a folder that is not shared.

        Raises:
            DataError: if the CSV is not on this node either, or differs.
        """
        if Path(self.path).exists():
            return self
        made = index_csv(self.csv, Path(self.path).parent, self.options)
        if made.content != self.content:
            raise DataError(
                f"{self.csv} differs from the file on the node that started the run; share it between all nodes"
            )
        return made

    @property
    def decimal(self) -> Decimal:
        """The decimal mark."""
        return "," if self.dialect.decimal == "," else "."

    def column(self, name: str) -> ColumnReport:
        """The column of that name.

        Raises:
            DataError: if there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise DataError(f"{self.csv} has no column '{name}'; it has: {', '.join(self.dialect.names)}")

    def packed(self) -> pyarrow.Table:
        """The index in the layout of its file (see `layout.py`), memory-mapped."""
        return pyarrow.ipc.open_file(pyarrow.memory_map(self.path)).read_all()

    def batches(self, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
        """Columns of the index, or `LINE`, batch by batch: null is a missing number, code -1 a missing category."""
        for batch in self.packed().to_batches():
            yield unpack(batch, columns)

    def text_of(self, column: str, cells: pyarrow.Array) -> pyarrow.Array:
        """Cells of a category or a text column of a batch as text, null where a category is missing."""
        if column not in self.codes:
            return cells
        codes = pc.if_else(pc.less(cells, 0), None, cells)
        return pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(self.codes[column], pyarrow.string()))

    def table(self) -> pyarrow.Table:
        """All columns of the index, in memory."""
        return pyarrow.Table.from_batches(list(self.batches([*self.dialect.names, LINE])))

    def bad_rows(self) -> BadRows:
        """Ragged rows, cells that are not numbers, missing labels and image paths, and images with two labels."""
        faults = pyarrow.ipc.open_file(pyarrow.memory_map(_beside(self.path, ".bad.arrow"))).read_all()
        return BadRows(self.csv, faults)


def index_csv(csv: str | Path, cache: str | Path, options: CsvOptions | None = None) -> CsvIndex:
    """The index of a CSV, from the folder `cache` if that has it for the same content and options.

    A CSV with the size and mtime of the last time is not read again; otherwise it is read once to hash it. A folder of
    class folders counts as its equivalent CSV.

    Raises:
        DataError: if the CSV is missing or empty, is no text, has no header or lacks a column that `options` name, or
            if the folder cannot be written.
    """
    options = options or CsvOptions()
    if is_uri(cache):
        raise DataError(
            f"{cache} is a URI, and the index of a CSV is mapped into memory; name a folder of this machine"
        )
    folder = make_cache(cache, flag="--data.cache")
    with _kept_in(folder, str(csv)):
        return _index_csv(csv, folder, options)


@contextlib.contextmanager
def _kept_in(folder: Path, csv: str) -> Iterator[None]:
    """Raise a DataError that names the folder if it cannot be written."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DataError) or error.errno not in _REFUSALS or csv in str(error):
            raise
        raise DataError(
            f"{folder} cannot be written ({first_line(error)}); name another folder with --data.cache, or "
            "with --out of blitz prepare"
        ) from error


def _index_csv(csv: str | Path, folder: Path, options: CsvOptions) -> CsvIndex:
    source = _Source.of(str(csv), folder, is_images=options.image_column is not None)
    key = fingerprint(json.dumps([_FORMAT, source.content, asdict(replace(options, flags=""))], sort_keys=True))[:32]
    target, report = folder / f"{key}.arrow", folder / f"{key}.json"
    if not (report.exists() and target.exists()):
        try:
            with FileLock(folder / f"{key}.lock"):
                # A second process waits, and then finds it.
                if not (report.exists() and target.exists()):
                    _make(source, options, target, report)
        except OSError as error:
            # Errors of the CSV's own storage are reported by the caller.
            if not str(error.filename or "").startswith(str(folder)):
                raise
            raise DataError(f"{folder} cannot be written ({error.strerror}); name another folder") from error
    found = json.loads(report.read_text("utf-8"))
    dialect = Dialect(**{name: _frozen(value) for name, value in found["dialect"].items()})
    columns = tuple(ColumnReport(**{name: _frozen(value) for name, value in one.items()}) for one in found["columns"])
    codes = {name: tuple(values) for name, values in found["codes"].items()}
    rows, total_rows = found["rows"], found["total_rows"]
    return CsvIndex(
        str(csv),
        str(target),
        dialect,
        columns,
        codes,
        rows,
        total_rows,
        source.content,
        options,
        source.compression,
        {name: Writing(**one) for name, one in found["writings"].items()},
    )


def make_cache(cache: str | Path, *, flag: str) -> Path:
    """The folder of indexes, created if it does not exist; `flag` names it in messages.

    Raises:
        DataError: if it cannot be created.
    """
    folder = Path(cache).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise DataError(f"{flag}: {folder} cannot be written ({reason}); name another folder") from error
    return folder


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _beside(path: str, suffix: str) -> str:
    return path.removesuffix(".arrow") + suffix


@dataclass(frozen=True)
class _Source:
    """A CSV file, with its content hash, encoding and compression."""

    name: str
    content: str
    encoding: Guess
    compression: str | None = None

    @classmethod
    def of(cls, name: str, folder: Path, *, is_images: bool) -> "_Source":
        files, path = open_location(name)
        info = files.get_file_info(path)
        if is_images and info.type == pyarrow.fs.FileType.Directory:
            return cls._of_folder(name, folder)
        require_file(name, info)
        if info.size == 0:
            raise DataError(f"{name} is empty; its first line must name the columns")
        stamp = {"size": info.size, "mtime_ns": info.mtime_ns, "format": _FORMAT}
        memo = folder / f"{fingerprint(absolute(name))[:32]}.seen.json"
        seen = json.loads(memo.read_text("utf-8")) if memo.exists() else {}
        if seen.get("stamp") != stamp:
            began = time.time()
            seen = {"stamp": stamp, **_scan(name)}
            # A file changed just now may change again with the same mtime.
            if began - info.mtime_ns / 1e9 > _RACY_S:
                # If this fails, the CSV is hashed again the next time.
                with contextlib.suppress(OSError):
                    _write(memo, json.dumps(seen))
        return cls(name, seen["content"], seen["encoding"], seen["compression"])

    @classmethod
    def _of_folder(cls, name: str, folder: Path) -> "_Source":
        text = listing(name)
        content = hashlib.sha256(text).hexdigest()
        target = folder / f"{content[:32]}.csv"
        if not target.exists():
            _write(target, text.decode())
        return cls(str(target), content, "utf-8")


def _scan(name: str) -> dict[str, str | None]:
    digest, scan, size = hashlib.sha256(), EncodingScan(), 0
    with CsvBytes(name) as file:
        while data := file.read(_HASHED_BYTES):
            digest.update(data)
            scan.add(data)
            size += len(data)
        compression = file.compression
    if not size:
        raise DataError(f"{name} is empty; its first line must name the columns")
    encoding = scan.encoding()
    if encoding is None:
        raise DataError(f"{name} is not text; save the table as CSV, best in UTF-8")
    return {"content": digest.hexdigest(), "encoding": encoding, "compression": compression}


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, "utf-8")


def _make(source: _Source, options: CsvOptions, target: Path, report: Path) -> None:
    with replacing(target) as part:
        dialect, result = read_csv(source.name, source.encoding, options, part)
    faults = result.faults
    if options.image_column and options.label_columns:
        faults.append(conflicting_labels(target, options.image_column, options.label_columns))
    with replacing(Path(_beside(str(target), ".bad.arrow"))) as part:
        write_faults(faults, part)
    content = {name: getattr(result, name) for name in ("columns", "codes", "rows", "total_rows", "writings")}
    _write(report, json.dumps({"dialect": asdict(dialect)} | content))
