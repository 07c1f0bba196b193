"""Making the index of a table in one streaming pass over each file, cached by their content.

<cache>/<key>.json        the report on a table; written last: without it a key counts as absent
<cache>/<key>.bad.arrow   images of the table with two labels, if it is one of images
<cache>/<file>.arrow      the columns of a file: float64 (NaN where missing or bad), int32 codes (-1 where missing), or
                          text; and the line of every row
<cache>/<file>.bad.arrow  the bad rows of the file
<cache>/<file>.json       what the pass over the file found; written last
<cache>/<key>.seen.json   size, mtime, content hash, encoding and format of a path when last read
<cache>/<content>.csv     the CSV equivalent to a folder of class folders
<cache>/<url>-<name>      a file of a web server
"""

import contextlib
import errno
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.fs
from filelock import FileLock

from blitz.data.csv.class_folders import listing
from blitz.data.csv.reading.bad_rows import write_faults
from blitz.data.csv.reading.columns import ColumnReport, states_of
from blitz.data.csv.reading.compressed import CsvBytes, require_file
from blitz.data.csv.reading.csv_index import CsvIndex as CsvIndex
from blitz.data.csv.reading.csv_index import IndexedFile, beside_index
from blitz.data.csv.reading.dialect import Dialect
from blitz.data.csv.reading.encoding import EncodingScan
from blitz.data.csv.reading.head import format_of
from blitz.data.csv.reading.label_conflicts import conflicting_labels
from blitz.data.csv.reading.merged import Examined, FileReport, scan_table
from blitz.data.csv.reading.numbers import Writing
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.reading.scan import FileTask, scan
from blitz.data.csv.reading.source_files import SourceFile, files_of
from blitz.data.parallel_map import parallel_map
from blitz.errors import DataError, first_line
from blitz.storage import absolute, fingerprint, is_folder, open_location, replacing
from blitz.uris import is_uri

_FORMAT = 6
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


def index_csv(csv: str | Path, cache: str | Path, options: CsvOptions | None = None) -> CsvIndex:
    """The index of a table, from the folder `cache` if that has it for the same content and options.

    `csv` names a file, or several (see `files_of`): CSVs, JSON lines, Parquet or Arrow files. A file with the size and
    mtime of the last time is not read again; otherwise it is read once to hash it. A folder of class folders counts as
    its equivalent CSV where `options` name a column of images.

    Raises:
        DataError: if a file is missing or empty, is no table, has no header, lacks a column that `options` name or has
            others than the first file, or if the folder cannot be written.
    """
    options = options or CsvOptions()
    folder = _cache_of(cache)
    with _kept_in(folder, str(csv)):
        is_classes = options.image_column is not None and is_folder(str(csv))
        files = [SourceFile.of(str(csv))] if is_classes else files_of(str(csv), folder)
        return _indexed(str(csv), files, folder, options)


def again(index: CsvIndex, options: CsvOptions) -> CsvIndex:
    """The files of an index, read with other options; they may have changed."""
    folder = Path(index.path).parent
    with _kept_in(folder, index.csv):
        folder.mkdir(parents=True, exist_ok=True)
        return _indexed(index.csv, [one.file.here(folder) for one in index.files], folder, options)


def on_this_node(index: CsvIndex) -> CsvIndex:
    """The index on this node: rebuilt if another node made it in a folder that is not shared.

    Raises:
        DataError: if the files are not on this node either, or differ.
    """
    if all(Path(one.path).exists() for one in index.files):
        return index
    made = again(index, index.options)
    if made.content != index.content:
        raise DataError(
            f"{index.csv} differs from the file on the node that started the run; share it between all nodes"
        )
    return made


def _cache_of(cache: str | Path) -> Path:
    if is_uri(cache):
        raise DataError(
            f"{cache} is a URI, and the index of a CSV is mapped into memory; name a folder of this machine"
        )
    return make_cache(cache, flag="--data.cache")


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


def _indexed(csv: str, files: Sequence[SourceFile], folder: Path, options: CsvOptions) -> CsvIndex:
    examine = partial(_examined, folder=folder, is_images=options.image_column is not None)
    sources = list(map(examine, files) if len(files) == 1 else parallel_map(examine, files))
    key = _key(_content_of(sources), asdict(replace(options, flags="")))
    report = folder / f"{key}.json"
    if not _is_whole(report, folder):
        try:
            with FileLock(folder / f"{key}.lock"):
                # A second process waits, and then finds it.
                if not _is_whole(report, folder):
                    _make(csv, sources, folder, options, report)
        except OSError as error:
            # Errors of the CSV's own storage are reported by the caller.
            if not str(error.filename or "").startswith(str(folder)):
                raise
            raise DataError(f"{folder} cannot be written ({error.strerror}); name another folder") from error
    return _loaded(csv, sources, options, report, json.loads(report.read_text("utf-8")))


def _loaded(
    csv: str, sources: Sequence[Examined], options: CsvOptions, report: Path, found: dict[str, Any]
) -> CsvIndex:
    indexed = [
        IndexedFile(
            source.file,
            str(report.parent / f"{one['key']}.arrow"),
            one["rows"],
            "line" if source.format in ("csv", "json") else "row",
            {name: tuple(codes) for name, codes in one["codes"].items()},
        )
        for source, one in zip(sources, found["files"], strict=True)
    ]
    return CsvIndex(
        csv,
        str(report),
        tuple(indexed),
        Dialect(**{name: _frozen(value) for name, value in found["dialect"].items()}),
        tuple(ColumnReport(**{name: _frozen(value) for name, value in one.items()}) for one in found["columns"]),
        {name: tuple(values) for name, values in found["codes"].items()},
        found["rows"],
        found["total_rows"],
        _content_of(sources),
        options,
        sources[0].compression,
        {name: Writing(**one) for name, one in found["writings"].items()},
    )


def _is_whole(report: Path, folder: Path) -> bool:
    """Whether there is a report, and the indexes of all files that it names."""
    if not report.exists():
        return False
    files = json.loads(report.read_text("utf-8"))["files"]
    return all((folder / f"{one['key']}.arrow").exists() for one in files)


def _content_of(sources: Sequence[Examined]) -> str:
    """The hash of one file, or of those of several and the columns that their folders name."""
    if len(sources) == 1 and not sources[0].file.partition:
        return sources[0].content
    return fingerprint(json.dumps([[one.content, one.file.partition] for one in sources]))


def _key(*parts: Any) -> str:
    return fingerprint(json.dumps([_FORMAT, *parts], sort_keys=True))[:32]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _examined(file: SourceFile, folder: Path, *, is_images: bool) -> Examined:
    """A file's content hash, encoding and format; from memory if its size and mtime are those of the last time."""
    files, path = open_location(file.location)
    info = files.get_file_info(path)
    if is_images and info.type == pyarrow.fs.FileType.Directory:
        return _of_class_folders(file, folder)
    require_file(file.name, info)
    if info.size == 0:
        raise DataError(f"{file.name} is empty; its first line must name the columns")
    stamp = {"size": info.size, "mtime_ns": info.mtime_ns, "format": _FORMAT}
    memo = folder / f"{fingerprint(absolute(file.location))[:32]}.seen.json"
    seen = json.loads(memo.read_text("utf-8")) if memo.exists() else {}
    if seen.get("stamp") != stamp:
        began = time.time()
        seen = {"stamp": stamp, **_hashed(file)}
        # A file changed just now may change again with the same mtime.
        if began - info.mtime_ns / 1e9 > _RACY_S:
            # If this fails, the file is hashed again the next time.
            with contextlib.suppress(OSError):
                _write(memo, json.dumps(seen))
    return Examined(file, file, seen["content"], seen["encoding"], seen["compression"], seen["kind"])


def _of_class_folders(file: SourceFile, folder: Path) -> Examined:
    text = listing(file.name)
    content = hashlib.sha256(text).hexdigest()
    target = folder / f"{content[:32]}.csv"
    if not target.exists():
        _write(target, text.decode())
    return Examined(file, replace(file, location=str(target)), content, "utf-8", None, "csv")


def _hashed(file: SourceFile) -> dict[str, str | None]:
    kind = format_of(file)
    digest, scanned, size = hashlib.sha256(), EncodingScan(), 0
    with CsvBytes(file.name, file.location) as data:
        while block := data.read(_HASHED_BYTES):
            digest.update(block)
            if kind == "csv":
                scanned.add(block)
            size += len(block)
        compression = data.compression
    if not size:
        raise DataError(f"{file.name} is empty; its first line must name the columns")
    encoding = scanned.encoding() if kind == "csv" else "utf-8"
    if encoding is None:
        raise DataError(f"{file.name} is not text; save the table as CSV, best in UTF-8")
    return {"content": digest.hexdigest(), "encoding": encoding, "compression": compression, "kind": kind}


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, "utf-8")


def _make(csv: str, sources: Sequence[Examined], folder: Path, options: CsvOptions, report: Path) -> None:
    found = asdict(scan_table(csv, sources, options, partial(_passed, folder=folder)))
    if options.image_column and options.label_columns:
        index = _loaded(csv, sources, options, report, found)
        conflicts = conflicting_labels(index, options.image_column, options.label_columns)
        with replacing(Path(beside_index(str(report), ".bad.arrow"))) as part:
            write_faults([conflicts], part)
    _write(report, json.dumps(found))


def _passed(work: tuple[FileTask, str], folder: Path) -> FileReport:
    """What a pass over a file finds; its index is written, unless the assumptions do not hold."""
    task, content = work
    first = task.first
    marks = [first.format, first.delimiter, first.quote, first.header, task.is_first, first.index_column]
    options = asdict(replace(task.options, flags=""))
    key = _key(content, task.partition, task.format, marks, options, task.assumed.key)
    target, report = folder / f"{key}.arrow", folder / f"{key}.json"
    if report.exists():
        found = FileReport(**json.loads(report.read_text("utf-8")))
        if target.exists() if found.written else task.assumed.passes == 1:
            return found
    with replacing(target) as part:
        result = scan(task, part)
    if not result.written:
        target.unlink(missing_ok=True)
    with replacing(Path(beside_index(str(target), ".bad.arrow"))) as part:
        write_faults(result.faults, part)
    found = FileReport(
        key, states_of(result.columns), result.rows, result.total_rows, result.written, dict(result.more)
    )
    _write(report, json.dumps(asdict(found)))
    return found
