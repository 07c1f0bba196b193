"""Files by their path or URI, local or in an object store."""

import errno
import fcntl
import hashlib
import os
import posixpath
import secrets
import stat
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.fs

from blitz.errors import DataError
from blitz.uris import check_uri, is_uri, is_web

# The threads wait for object stores and do not compute.
_THREADS = 16


def absolute(location: str | Path) -> str:
    """A URI unchanged, a path as an absolute path.

    Raises:
        DataError: for an empty path, a home directory that does not exist, or a URI that holds a secret or a character
            that would silently cut it short.
    """
    text = str(location)
    if is_uri(text):
        check_uri(text)
        return text
    if not text:
        raise DataError("a path is empty; name a file or a folder")
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError:
        raise DataError(f"{text}: there is no such user; for a folder of that name write ./{text}") from None


def _split(location: str | Path) -> tuple[str, str]:
    """An absolute path or URI up to its query, and the query with its question mark; a path has none."""
    text = absolute(location)
    base, question, query = text.partition("?") if is_uri(text) else (text, "", "")
    return base, question + query


def _quoted(location: str | Path, path: str) -> str:
    return urllib.parse.quote(path) if is_uri(location) else path


def joined(folder: str | Path, path: str) -> str:
    """The path or URI of the relative `path` within a folder; in a URI it is quoted."""
    base, query = _split(folder)
    return f"{base.rstrip('/')}/{_quoted(folder, path)}{query}"


def beside(location: str | Path, suffix: str) -> str:
    """The path or URI of a file with `suffix` added to its name."""
    base, query = _split(location)
    return f"{base.rstrip('/')}{_quoted(location, suffix)}{query}"


def folder_of(location: str | Path) -> str:
    """The folder of a file, as a path or URI."""
    base, query = _split(location)
    return (base.rstrip("/").rpartition("/")[0] or "/") + query


def name_of(location: str | Path) -> str:
    """The last part of a path or URI, unquoted."""
    name = _split(location)[0].rstrip("/").rpartition("/")[2]
    return urllib.parse.unquote(name) if is_uri(location) else name


# The S3 client waits 0, 50, 100, 200 … ms before it repeats a request, so not twice as long as an outage lasts.
_REPEATS, _PATIENT_REPEATS = 7, 14
_SECONDS, _PATIENT_SECONDS = 3, 7 * 60
"""The sum of these waits."""
_SECONDS_OF_SILENCE = 10.0


def open_location(location: str | Path, *, patient: bool = False) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    A request to S3 or GCS that fails is repeated for 3 seconds, or if `patient` for 7 minutes.

    Raises:
        DataError: for a URI that `pyarrow.fs` does not know.
    """
    uri = absolute(location)
    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds" not in uri:
        # By default Google's client takes 15 minutes to report that it cannot reach a server.
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={_PATIENT_SECONDS if patient else _SECONDS}"
    try:
        files, path = pyarrow.fs.FileSystem.from_uri(uri)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{location} cannot be opened: {str(error).splitlines()[0]}") from error
    if isinstance(files, pyarrow.fs.S3FileSystem):
        # A URI cannot express this, so the client is rebuilt from the arguments that it is pickled as.
        _, (arguments,) = files.__reduce__()
        files = pyarrow.fs.S3FileSystem(
            **{**arguments, "request_timeout": _SECONDS_OF_SILENCE},
            retry_strategy=pyarrow.fs.AwsDefaultS3RetryStrategy(max_attempts=_PATIENT_REPEATS if patient else _REPEATS),
        )
    return files, path


_TEMPORARY = ".tmp"
_KEPT_BYTES = 180
"""The part of a file's name that its temporary file's name holds: a name has at most 255 bytes."""


def is_temporary(name: str) -> bool:
    """Whether a file of that name is a temporary one of `replacing`."""
    return name.startswith(".") and name.endswith(_TEMPORARY)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, which replaces the local file `path` when this context ends without an error.

    Each writer has its own file and holds a lock on it: that of a killed writer is deleted by the next one.

    Raises:
        DataError: if `path` is a device or a pipe.
    """
    if _is_special(path):
        raise DataError(f"{path} is not an ordinary file, and would be replaced by one; name another one")
    _sweep(path)
    part, lock = _new_part(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        os.close(lock)


def _is_special(path: Path) -> bool:
    # One look: another process may delete the file at any time.
    try:
        mode = path.stat().st_mode
    except OSError:
        # None is there, or whoever opens it sees why.
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _part_prefix(path: Path) -> str:
    return f".{os.fsdecode(os.fsencode(path.name)[:_KEPT_BYTES])}."


def _new_part(path: Path) -> tuple[Path, int]:
    while True:
        part = path.with_name(f"{_part_prefix(path)}{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
        lock = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _flock(lock, fcntl.LOCK_EX)
        # Before it was locked, another writer may have deleted it as that of a killed one.
        if os.fstat(lock).st_nlink:
            return part, lock
        os.close(lock)


def _sweep(path: Path) -> None:
    prefix = _part_prefix(path)
    stale = [name for name in os.listdir(path.parent) if name.startswith(prefix) and is_temporary(name)]
    for name in stale:
        # Another writer may have finished with it by now.
        with suppress(OSError):
            lock = os.open(path.with_name(name), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    path.with_name(name).unlink()
            finally:
                os.close(lock)


def _flock(file: int, how: int) -> bool:
    """Whether the lock is held now; False also on a file system that has no locks.

    Raises:
        BlockingIOError: if another process holds it and `how` says not to wait.
    """
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        return False
    return True


@contextmanager
def locked(location: str | Path) -> Iterator[None]:
    """Hold the lock file of that path, which is deleted afterwards; object stores have no locks.

    Raises:
        BlockingIOError: if another process holds it.
    """
    files, path = open_location(location)
    if not isinstance(files, pyarrow.fs.LocalFileSystem):
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = _held_lock(path)
    try:
        yield
    finally:
        # Before it is released: a process that has opened it meanwhile notices, and creates another one.
        Path(path).unlink(missing_ok=True)
        os.close(lock)


def _held_lock(path: str) -> int:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _is_ours(lock, path):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _is_ours(lock: int, path: str) -> bool:
    """Whether an open lock file is locked now and still the one at `path`; if not, try again."""
    try:
        _flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Only a process that checks whether it is held shares it, for a moment.
        _flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    # Opened again, because NFS may answer `stat` from its cache.
    with suppress(FileNotFoundError), open(path, "rb") as now:
        return os.path.samestat(os.fstat(lock), os.fstat(now.fileno()))
    return False


def write_whole(files: pyarrow.fs.FileSystem, path: str, data: bytes) -> None:
    """Write a file, and create its folder: a reader sees the old content or all of `data`."""
    if isinstance(files, pyarrow.fs.LocalFileSystem):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as part:
            part.write_bytes(data)
        return
    # An object appears when its stream is closed, and needs no folder.
    with files.open_output_stream(path, compression=None) as stream:
        stream.write(data)


@contextmanager
def written_whole(location: str | Path) -> Iterator[Callable[[bytes], Any]]:
    """A function that writes to a file, which appears once this context ends without an error."""
    files, path = open_location(location)
    if isinstance(files, pyarrow.fs.LocalFileSystem):
        with replacing(Path(path)) as part, part.open("wb") as stream:
            yield stream.write
        return
    # pyarrow alone would also create an object from a part that was written before an error.
    with tempfile.NamedTemporaryFile(prefix="blitz-") as spool:
        yield spool.write
        spool.flush()
        with files.open_output_stream(path, compression=None) as upload, pyarrow.memory_map(spool.name) as whole:
            upload.write(whole.read_buffer())


def exists(location: str | Path) -> bool:
    """Whether there is a file or a folder of that path or URI."""
    files, path = open_location(location)
    return bool(files.get_file_info(path).type != pyarrow.fs.FileType.NotFound)


def is_folder(location: str | Path) -> bool:
    """Whether there is a folder of that path or URI."""
    if is_web(location):
        return False
    files, path = open_location(location)
    return bool(files.get_file_info(path).type == pyarrow.fs.FileType.Directory)


class Folder:
    """Finds the files that cells of a CSV name: relative to a folder, absolute, or a URI."""

    def __init__(self, root: str | Path) -> None:
        self._root = open_location(root)
        self._others: dict[str, tuple[pyarrow.fs.FileSystem, str]] = {}

    def find(self, cell: str) -> tuple[pyarrow.fs.FileSystem, str]:
        """The file system of the file that a cell names, and the path within it.

        Raises:
            DataError: for an invalid URI.
        """
        if "://" not in cell:
            files, root = self._root
            return files, posixpath.join(root, cell)
        # Creating a client of an object store is slow, so all URIs of a bucket share one.
        try:
            uri = urllib.parse.urlsplit(cell)
        except ValueError as error:
            raise DataError(f"{cell} cannot be opened: {error}") from error
        bucket = uri._replace(path="/").geturl()
        if bucket not in self._others:
            self._others[bucket] = open_location(bucket)
        files, root = self._others[bucket]
        return files, posixpath.join(root, urllib.parse.unquote(uri.path).lstrip("/"))

    def read_each(self, cells: Sequence[str]) -> Iterator[Callable[[], bytes]]:
        """For each cell, in order, a function that returns the bytes of its file or raises OSError; waits overlap."""
        local = isinstance(self._root[0], pyarrow.fs.LocalFileSystem)
        if local and not any("://" in cell for cell in cells):
            yield from (partial(self._read, cell) for cell in cells)
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            yield from [pool.submit(self._read, cell).result for cell in cells]

    def _read(self, cell: str) -> bytes:
        files, path = self.find(cell)
        with files.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read())


def fingerprint(text: str) -> str:
    """The SHA-256 of `text`, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
