"""The files that a path, a URI, a folder, a pattern or a list of these names."""

import fnmatch
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import pyarrow.fs
from filelock import FileLock

from blitz.errors import DataError, first_line
from blitz.storage import absolute, fingerprint, joined, name_of, open_location, replacing
from blitz.uris import is_uri, is_web

_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".arrow", ".feather", ".ipc", ".jsonl", ".ndjson", ".json")
_PACKED = (".gz", ".bz2", ".zst", ".xz", ".lz4", ".zip")
_SECONDS_OF_SILENCE = 30.0
_INDEX = re.compile(r"[0-9a-f]{32}((\.bad)?\.arrow|(\.seen)?\.json)")
# What Hive writes for a missing value.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class SourceFile:
    """A file of a table."""

    name: str
    """What messages call it."""
    location: str
    """Where it is read: the same, or the copy of a download."""
    partition: tuple[tuple[str, str], ...] = ()
    """Columns that its folders name, as `year=2024/month=01`, and the value of all their cells."""

    @classmethod
    def of(cls, name: str, partition: tuple[tuple[str, str], ...] = ()) -> Self:
        """The file of a path or a URI."""
        return cls(name, absolute(name), partition)

    def here(self, downloads: Path) -> Self:
        """The file on this node, to which it is downloaded if it is one of a web server."""
        return replace(self, location=_downloaded(self.name, downloads)) if is_web(self.name) else self


def files_of(source: str, downloads: Path) -> list[SourceFile]:
    """The files of a table, in order: those of a folder or a pattern by their names, those of a list as listed.

    A pattern has `*` and `[…]`, `?` in a path, and `**` for any folders; a list has commas. What is on a web server is
    downloaded once into a folder.

    Raises:
        DataError: if there is none, or one twice.
    """
    # The cache may lie in the folder that is read, and an index is no table.
    cache = str(downloads.absolute())
    found = [one for one in _files_of(source, downloads) if not _is_index(one.location, cache)]
    names = [file.name for file in found]
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{twice} is named twice in {source}")
    for file in found:
        if [name for name, _ in file.partition] != [name for name, _ in found[0].partition]:
            raise DataError(
                f"{file.name} and {found[0].name} do not lie in folders of the same columns, as year=2024; "
                "name a folder or a pattern of files that do"
            )
    return found


def _files_of(source: str, downloads: Path) -> Iterator[SourceFile]:
    if is_web(source) and "," not in source:
        yield SourceFile(source, _downloaded(absolute(source), downloads))
        return
    wild = "*[" if is_uri(source) else "*?["
    kind = pyarrow.fs.FileType.NotFound
    if not is_uri(source) or not any(mark in source for mark in "*[,"):
        files, path = open_location(source)
        kind = files.get_file_info(path).type
    if kind == pyarrow.fs.FileType.Directory:
        yield from _in_folder(source)
    elif kind == pyarrow.fs.FileType.NotFound and "," in source:
        for part in filter(None, map(str.strip, source.split(","))):
            yield from _files_of(part, downloads)
    elif kind == pyarrow.fs.FileType.NotFound and any(mark in source for mark in wild):
        yield from _matching(source, wild)
    else:
        # A file, or none: whoever opens it sees which.
        yield SourceFile.of(source)


def _in_folder(folder: str) -> list[SourceFile]:
    files, root = open_location(folder)
    paths = [path for path in _below(files, root) if _is_table(path)]
    if not paths:
        raise DataError(f"{folder} holds no table; name a file, or a folder of {', '.join(_SUFFIXES)}")
    return [_named(folder, path[len(root) :].strip("/")) for path in sorted(paths)]


def _matching(pattern: str, wild: str) -> list[SourceFile]:
    base, query = (pattern.partition("?")[::2]) if is_uri(pattern) else (pattern, "")
    segments = base.split("/")
    fixed = next(i for i, segment in enumerate(segments) if any(mark in segment for mark in wild))
    folder = "/".join(segments[:fixed]) or ("/" if pattern.startswith("/") else ".")
    located = f"{folder}?{query}" if query else folder
    files, root = open_location(located)
    found: list[SourceFile] = []
    for path in sorted({*_expanded(files, root.rstrip("/"), segments[fixed:], wild)}):
        relative = path[len(root) :].strip("/")
        if files.get_file_info(path).type == pyarrow.fs.FileType.File:
            found.append(_named(located, relative))
        else:
            inner = (one for one in _below(files, path) if _is_table(one))
            found += [_named(located, one[len(root) :].strip("/")) for one in sorted(inner)]
    if not found:
        raise DataError(f"{pattern} matches no file")
    return found


def _named(folder: str, relative: str) -> SourceFile:
    """A file below a folder, whose columns its folders may name."""
    name = joined(folder, relative) if is_uri(folder) else str(Path(folder) / relative)
    pairs = [part.split("=", 1) for part in relative.split("/")[:-1] if "=" in part]
    partition = tuple((unquote(key), "" if value == _NO_VALUE else unquote(value)) for key, value in pairs)
    return SourceFile.of(name, partition)


def _expanded(files: pyarrow.fs.FileSystem, base: str, segments: list[str], wild: str) -> Iterator[str]:
    """Paths that match `segments` below `base`."""
    if not segments:
        yield base
        return
    segment, *rest = segments
    if not any(mark in segment for mark in wild):
        path = f"{base}/{segment}"
        if rest or files.get_file_info(path).type != pyarrow.fs.FileType.NotFound:
            yield from _expanded(files, path, rest, wild)
        return
    if segment == "**":
        yield from _expanded(files, base, rest, wild)
    for info in files.get_file_info(pyarrow.fs.FileSelector(base, allow_not_found=True)):
        name = info.path.rstrip("/").rpartition("/")[2]
        is_folder = info.type == pyarrow.fs.FileType.Directory
        if name.startswith("."):
            continue
        if segment == "**":
            if is_folder:
                yield from _expanded(files, info.path, segments, wild)
        elif fnmatch.fnmatchcase(name, segment) and (is_folder or not rest):
            yield from _expanded(files, info.path, rest, wild)


def _below(files: pyarrow.fs.FileSystem, root: str) -> Iterator[str]:
    """Files below a folder, without hidden ones and those that writers of tables leave, as `_SUCCESS`."""
    for info in files.get_file_info(pyarrow.fs.FileSelector(root, recursive=True)):
        parts = info.path[len(root) :].strip("/").split("/")
        if info.type == pyarrow.fs.FileType.File and not any(part.startswith((".", "_")) for part in parts):
            yield info.path


def _is_index(location: str, cache: str) -> bool:
    folder, _, name = location.rpartition("/")
    return bool(_INDEX.fullmatch(name)) and folder == cache


def _is_table(path: str) -> bool:
    name = path.lower()
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    return name.endswith(_SUFFIXES)


def _downloaded(url: str, folder: Path) -> str:
    """The copy of a file on a web server; it is downloaded unless there is one."""
    name = re.sub(r"[^\w.-]", "_", name_of(url))[-100:]
    target = folder / f"{fingerprint(url)[:32]}-{name}"
    if not target.exists():
        with FileLock(f"{target}.lock"):
            if not target.exists():
                _download(url, target)
                print(f"{url}: downloaded to {target}")
    return str(target)


def _download(url: str, target: Path) -> None:
    # Imported here, because it takes a while.
    import http.client
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=_SECONDS_OF_SILENCE) as answer, replacing(target) as part:
            with part.open("wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
            length = answer.headers.get("Content-Length")
            if length is not None and part.stat().st_size != int(length):
                raise DataError(f"{url}: the connection broke after {part.stat().st_size} of {length} bytes; try again")
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} cannot be downloaded: {first_line(error)}") from error
