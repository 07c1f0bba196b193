"""A file's bytes, decompressed if the file starts like a compressed one."""

import lzma
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Any, Protocol

import pyarrow
import pyarrow.fs

from blitz.errors import DataError
from blitz.storage import open_location

# By the file's first bytes, not by its name: a download may have either.
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
_MAGIC_BYTES = max(map(len, _MAGIC))


class Stream(Protocol):
    """Bytes that are read once, in order."""

    def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; empty only at the end."""


class CsvBytes:
    """The bytes of a file, decompressed; a context that closes it. It is called `name`, and read at `location`.

    Raises:
        DataError: if there is no such file, or it is damaged, or a zip of more than one file.
    """

    def __init__(self, name: str, location: str | None = None) -> None:
        self.name = name
        files, path = open_location(name if location is None else location)
        require_file(name, files.get_file_info(path))
        self._file = files.open_input_file(path)
        self.compression: str | None = None
        """How the file is compressed, or None."""
        self._stream: Any = self._file
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        start = self._file.read(_MAGIC_BYTES)
        self._file.seek(0)
        self.compression = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
        if self.compression == "xz":
            self._stream = lzma.open(self._file)  # noqa: SIM115 - closed with the file
        elif self.compression == "zip":
            self._stream = _only_member(self.name, self._file)
        elif self.compression is not None:
            self._stream = pyarrow.CompressedInputStream(self._file, self.compression)

    def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; empty only at the end."""
        try:
            return bytes(self._stream.read(size))
        except (OSError, ValueError, EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error) as error:
            if self.compression is None:
                raise
            # An error that the stream raised in another library's loop may have no text.
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(f"{self.name} is a damaged or cut {self.compression} file ({why}); copy it again") from None

    def __enter__(self) -> "CsvBytes":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def require_file(name: str, info: pyarrow.fs.FileInfo) -> None:
    """Refuse a path that is not a file.

    Raises:
        DataError: if there is nothing of that name, or a folder.
    """
    if info.type == pyarrow.fs.FileType.Directory:
        raise DataError(f"{name} is a folder; name a CSV file")
    if info.type != pyarrow.fs.FileType.File:
        parts = name.replace(",", " ").split()
        several = (len(parts) > 1 and all("." in part for part in parts)) or any(mark in name for mark in "*[")
        mend = "name one CSV file, into which the rows of several are joined" if several else "name a CSV file"
        raise DataError(f"{name} is not there; {mend}")


def _only_member(name: str, file: Any) -> Any:
    """The only file in a zip; what macOS adds to one does not count."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        # pyarrow's files raise a ValueError for a position outside of them.
        raise DataError(f"{name} is a damaged or cut zip file ({error}); copy it again") from error
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not member.filename.startswith("__MACOSX/") and member.filename != ".DS_Store"
    ]
    names = [member.filename for member in members]
    if "[Content_Types].xml" in names or "mimetype" in names:
        raise DataError(f"{name} is a workbook, not a CSV; save its table as CSV, best in UTF-8")
    if len(members) != 1:
        found = f": {', '.join(PurePosixPath(each).name for each in names[:3])} …" if names else ""
        raise DataError(f"{name} is a zip of {len(members)} files{found}; it must hold one CSV")
    if members[0].flag_bits & 1:
        raise DataError(f"{name} is an encrypted zip; unpack it first")
    try:
        return archive.open(members[0])
    except NotImplementedError as error:
        raise DataError(f"{name} cannot be unpacked ({error}); unpack it first") from error
