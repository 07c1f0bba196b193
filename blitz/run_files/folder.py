"""A directory on any storage: a local disk, NFS or an object store."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pyarrow.fs

from blitz.errors import StorageError
from blitz.run_files.contained import require_inside, require_plain_path
from blitz.run_files.stored_json import parse_object
from blitz.storage import absolute, is_temporary, joined, name_of, open_location, write_whole

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Directory:
    """Files below `uri`, an absolute path or a URI that `pyarrow.fs` opens, such as s3://bucket/runs/name.

    Nothing outside is read or written on account of what lies in it, such as a symbolic link.
    """

    uri: str
    patient: bool = False
    """Whether requests to an object store are repeated for minutes: once the storage is known to be the right one."""
    flag: str = field(default="--storage", compare=False)
    """The flag that gave it, for messages."""
    boundary: str | None = None
    """The enclosing directory that files must not lead out of, for a part such as a trial of a sweep."""

    @classmethod
    def of(cls, storage: str, name: str | None = None) -> Self:
        """The directory `name` in `storage`, which may be a relative path or a URI."""
        return cls(absolute(storage) if name is None else joined(storage, name))

    def part(self, path: str) -> Self:
        """A directory in this one, such as a trial of a sweep."""
        return replace(self, uri=joined(self.uri, path), boundary=self.boundary or self.uri)

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part of its path, as `--run` names it."""
        return name_of(self.uri)

    def _open(self, path: str) -> tuple[pyarrow.fs.FileSystem, str]:
        require_plain_path(self.uri, path)
        files, root = open_location(self.uri, patient=self.patient)
        full = f"{root}/{path}" if path else root
        if isinstance(files, pyarrow.fs.LocalFileSystem) and (path or self.boundary):
            require_inside(full, open_location(self.boundary)[1] if self.boundary else root)
        return files, full

    def local_path(self, path: str) -> str:
        """The path of a file on a local disk."""
        return self._open(path)[1]

    @contextmanager
    def _explained(self, what: str, path: str) -> Iterator[None]:
        """Raise what a local disk refuses in this context as a one-line StorageError, except that a file is missing."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            # An object store may answer again at another try.
            if not self.appends or (what == "read" and isinstance(error, FileNotFoundError)):
                raise
            raise self.refused_file(what, path, error) from error

    def refused_file(self, what: str, path: str, error: OSError) -> StorageError:
        """The error to raise if a file of the run cannot be read or written."""
        reason = _reason(error)
        mend = "mend that, and give the same command again"
        return _refusal(f"{self.uri}/{path} cannot be {what} ({reason}); {mend}", reason)

    def exists(self, path: str) -> bool:
        """Whether the file or directory is there."""
        files, full = self._open(path)
        return bool(files.get_file_info(full).type != pyarrow.fs.FileType.NotFound)

    def written_at(self, path: str) -> float | None:
        """When a file was last written, in seconds since 1970; None if it is not there."""
        files, full = self._open(path)
        written = files.get_file_info(full).mtime
        return None if written is None else float(written.timestamp())

    def names(self, folder: str = "") -> list[str]:
        """Names of the files in it, or in one of its folders."""
        files, full = self._open(folder)
        found = files.get_file_info(pyarrow.fs.FileSelector(full, allow_not_found=True))
        return [info.base_name for info in found if not is_temporary(info.base_name)]

    def paths(self) -> list[str]:
        """Relative paths of all files in it, at any depth."""
        files, root = self._open("")
        found = files.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True, recursive=True))
        whole = (info for info in found if info.type == pyarrow.fs.FileType.File and not is_temporary(info.base_name))
        return [info.path.removeprefix(f"{root}/") for info in whole]

    def read(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            FileNotFoundError: if it is not there.
        """
        files, full = self._open(path)
        # As a file, whose size is known, an object is read in one request.
        with self._explained("read", path), files.open_input_file(full) as stream:
            return bytes(stream.read())

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file's bytes, a mebibyte at a time.

        Raises:
            FileNotFoundError: if it is not there.
        """
        files, full = self._open(path)
        with self._explained("read", path), files.open_input_stream(full, compression=None) as stream:
            while data := stream.read(_CHUNK_BYTES):
                yield data

    def open_file(self, path: str) -> pyarrow.NativeFile:
        """A file to read at any position.

        Raises:
            FileNotFoundError: if it is not there.
        """
        files, full = self._open(path)
        return files.open_input_file(full)

    def tail(self, path: str, most: int) -> bytes:
        """The last bytes of a file, `most` at most.

        Raises:
            FileNotFoundError: if it is not there.
        """
        files, full = self._open(path)
        with self._explained("read", path), files.open_input_file(full) as file:
            size = file.size()
            return bytes(file.read_at(min(size, most), max(0, size - most)))

    def write(self, path: str, data: bytes) -> None:
        """Write a file whole: a reader sees the old content or all of `data`.

        Raises:
            StorageError: if it cannot be written to a local disk.
        """
        with self._explained("written", path):
            write_whole(*self._open(path), data)

    @property
    def appends(self) -> bool:
        """Whether a file can grow without being rewritten."""
        return isinstance(self._open("")[0], pyarrow.fs.LocalFileSystem)

    def append(self, path: str, data: bytes) -> None:
        """Add to the end of a file. If the store cannot append, the file is rewritten.

        Raises:
            StorageError: if it cannot be written to a local disk.
        """
        file = Path(self._open(path)[1])
        if self.appends and file.exists():
            with self._explained("written", path), file.open("ab") as stream:
                stream.write(data)
        else:
            self.write(path, (self.read(path) if self.exists(path) else b"") + data)

    def write_json(self, path: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object whole."""
        self.write(path, (json.dumps(value, indent=2) + "\n").encode())

    def read_json(self, path: str) -> dict[str, Any] | None:
        """A JSON object, or None where there is no such file.

        Raises:
            DamagedFile: if the file is not JSON of the shape that a file of this name has.
        """
        try:
            data = self.read(path)
        except FileNotFoundError:
            return None
        return parse_object(data, self.uri, path)

    def delete(self) -> None:
        """Delete it with all that is in it; it need not be there."""
        files, full = self._open("")
        if self.exists(""):
            files.delete_dir(full)

    def probe(self) -> None:
        """Write and remove a file.

        Raises:
            UserError: if the storage cannot be written.
        """
        try:
            self.write(".probe", b"")
            files, full = self._open(".probe")
            # Another process that probes may have deleted it.
            with suppress(FileNotFoundError):
                files.delete_file(full)
        except OSError as error:
            raise self.refused("written", error) from error

    def refused(self, what: str, error: OSError) -> StorageError:
        """The error to raise if the storage cannot be read or written."""
        if isinstance(error, StorageError) and not error.reason:
            return error
        reason = _reason(error)
        mend = "mend it, and the same command resumes" if self.patient else "name another one"
        return _refusal(f"{self.flag}: {self.uri} cannot be {what} ({reason}); {mend}", reason)

    def delete_folder(self, path: str) -> None:
        """Delete a folder and what is in it."""
        files, full = self._open(path)
        files.delete_dir(full)


def _reason(error: OSError) -> str:
    if isinstance(error, StorageError) and error.reason:
        return error.reason
    return (str(error).splitlines() or [type(error).__name__])[0]


def _refusal(message: str, reason: str) -> StorageError:
    error = StorageError(message)
    error.reason = reason
    return error
