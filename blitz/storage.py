"""Files by their path or URI, local or in an object store."""

import hashlib
import posixpath
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.fs

from blitz.errors import DataError

# Object stores are waited for, not computed on.
_THREADS = 16


def absolute(place: str | Path) -> str:
    """A URI as it is, a path as an absolute path."""
    return str(place) if "://" in str(place) else str(Path(place).expanduser().absolute())


# The S3 client waits 0, 50, 100, 200 … ms before it repeats a request, so not twice as long as an outage lasts.
_REPEATS, _PATIENT_REPEATS = 7, 14
_SECONDS, _PATIENT_SECONDS = 3, 7 * 60
"""That these waits come to."""
_SECONDS_OF_SILENCE = 10.0


def open_place(place: str | Path, *, patient: bool = False) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    A request to S3 or GCS that fails is repeated for 3 seconds, or if `patient` for 7 minutes.

    Raises:
        DataError: for a URI that `pyarrow.fs` does not know.
    """
    uri = absolute(place)
    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds" not in uri:
        # By itself Google's client takes 15 minutes to say that it cannot reach a server.
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={_PATIENT_SECONDS if patient else _SECONDS}"
    try:
        files, path = pyarrow.fs.FileSystem.from_uri(uri)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{place} cannot be opened: {str(error).splitlines()[0]}") from error
    if isinstance(files, pyarrow.fs.S3FileSystem):
        # A URI cannot ask for this, so the client is made anew, of the arguments that it is pickled as.
        _, (arguments,) = files.__reduce__()
        files = pyarrow.fs.S3FileSystem(
            **{**arguments, "request_timeout": _SECONDS_OF_SILENCE},
            retry_strategy=pyarrow.fs.AwsDefaultS3RetryStrategy(max_attempts=_PATIENT_REPEATS if patient else _REPEATS),
        )
    return files, path


@contextmanager
def written_whole(place: str | Path) -> Iterator[Callable[[bytes], Any]]:
    """What writes to a file that is there once this context is left, and not before."""
    files, path = open_place(place)
    # An object appears when its stream is closed; a file must be moved into place.
    local = isinstance(files, pyarrow.fs.LocalFileSystem)
    part = f"{path}.tmp" if local else path
    with files.open_output_stream(part, compression=None) as stream:
        yield stream.write
    if local:
        files.move(part, path)


def exists(place: str | Path) -> bool:
    """Whether there is a file or a folder of that path or URI."""
    files, path = open_place(place)
    return bool(files.get_file_info(path).type != pyarrow.fs.FileType.NotFound)


def is_folder(place: str | Path) -> bool:
    """Whether there is a folder of that path or URI."""
    files, path = open_place(place)
    return bool(files.get_file_info(path).type == pyarrow.fs.FileType.Directory)


def folder_of(place: str | Path) -> str:
    """The folder that a file lies in, as a path or URI."""
    uri, question, query = absolute(place).partition("?") if "://" in str(place) else (absolute(place), "", "")
    return (uri.rpartition("/")[0] or "/") + question + query


class Folder:
    """Where cells of a CSV look for their files: relative to a folder, absolute, or a URI of its own."""

    def __init__(self, root: str | Path) -> None:
        self._root = open_place(root)
        self._others: dict[str, tuple[pyarrow.fs.FileSystem, str]] = {}

    def find(self, cell: str) -> tuple[pyarrow.fs.FileSystem, str]:
        """The file system and the path within it of what a cell names.

        Raises:
            DataError: for a URI that is none.
        """
        if "://" not in cell:
            files, root = self._root
            return files, posixpath.join(root, cell)
        # A client of an object store takes long to make, so all URIs of a bucket share one.
        try:
            uri = urllib.parse.urlsplit(cell)
        except ValueError as error:
            raise DataError(f"{cell} cannot be opened: {error}") from error
        bucket = uri._replace(path="/").geturl()
        if bucket not in self._others:
            self._others[bucket] = open_place(bucket)
        files, root = self._others[bucket]
        return files, posixpath.join(root, urllib.parse.unquote(uri.path).lstrip("/"))

    def read_each(self, cells: Sequence[str]) -> Iterator[Callable[[], bytes]]:
        """For each cell, in order, what gives the bytes of its file, or raises OSError; long waits overlap."""
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
    """64 hexadecimal digits that name `text`."""
    return hashlib.sha256(text.encode()).hexdigest()
