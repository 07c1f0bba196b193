"""Files by their path or URI, local or in an object store."""

import hashlib
import posixpath
import urllib.parse
from pathlib import Path

import pyarrow
import pyarrow.fs

from blitz.errors import DataError


def absolute(place: str | Path) -> str:
    """A URI as it is, a path as an absolute path."""
    return str(place) if "://" in str(place) else str(Path(place).expanduser().absolute())


# The client waits 25 ms · 2ⁿ before attempt n + 1: under 7 minutes in all, and never twice as long as an outage lasts.
_PATIENT_ATTEMPTS = 14
_SECONDS_OF_SILENCE = 10.0


def open_place(place: str | Path, *, patient: bool = False) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    A request to an object store that fails is repeated for about two seconds, or if `patient` for some minutes.

    Raises:
        DataError: for a URI that `pyarrow.fs` does not know.
    """
    try:
        files, path = pyarrow.fs.FileSystem.from_uri(absolute(place))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{place} cannot be opened: {str(error).splitlines()[0]}") from error
    return (_patient(files) if patient else files), path


def _patient(files: pyarrow.fs.FileSystem) -> pyarrow.fs.FileSystem:
    # Google's client repeats for 15 minutes by itself, and a kernel waits for an NFS server without end.
    if not isinstance(files, pyarrow.fs.S3FileSystem):
        return files
    # A URI cannot ask for this, so the client is made anew, of the arguments that it is pickled as.
    _, (arguments,) = files.__reduce__()
    return pyarrow.fs.S3FileSystem(
        **{**arguments, "request_timeout": _SECONDS_OF_SILENCE},
        retry_strategy=pyarrow.fs.AwsDefaultS3RetryStrategy(max_attempts=_PATIENT_ATTEMPTS),
    )


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
        """The file system and the path within it of what a cell names."""
        if "://" not in cell:
            files, root = self._root
            return files, posixpath.join(root, cell)
        # A client of an object store takes long to make, so all URIs of a bucket share one.
        uri = urllib.parse.urlsplit(cell)
        bucket = uri._replace(path="/").geturl()
        if bucket not in self._others:
            self._others[bucket] = open_place(bucket)
        files, root = self._others[bucket]
        return files, posixpath.join(root, urllib.parse.unquote(uri.path).lstrip("/"))


def fingerprint(text: str) -> str:
    """64 hexadecimal digits that name `text`."""
    return hashlib.sha256(text.encode()).hexdigest()
