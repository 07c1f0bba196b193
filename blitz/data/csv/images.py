"""Whether the images that a CSV names are there, are images, and are whole, told without decoding them."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow
import pyarrow.fs

from blitz.data.csv.bad_rows import BadRows, faults_of, join_faults
from blitz.data.csv.index import CsvIndex
from blitz.data.csv.streaming_pass import LINE
from blitz.data.spread import spread
from blitz.errors import DataError
from blitz.storage import Folder, folder_of

ImageCheck = Literal["exists", "whole"]
"""`exists` asks for each file's size alone, `whole` also reads its first and last bytes."""

# Files are waited for, not computed on, so there may be more threads than cores.
_THREADS = 32
_PATHS_A_TASK = 4096
_HEAD_BYTES = 16
# Cameras and editors write some bytes after the end marker.
_TAIL_BYTES = 4096

NO_SUCH_FILE = "there is no such file"

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_GIF, _GIF_END = (b"GIF87a", b"GIF89a"), b"\x3b"


def check_images(index: CsvIndex, column: str, root: str | Path | None = None, check: ImageCheck = "whole") -> BadRows:
    """Rows whose image is missing, unreadable, of no known kind (JPEG, PNG, GIF, WebP), or cut off.

    A relative path is one in the folder `root`, by default the CSV's. What is found is not cached: files come and go.
    """
    batches = [
        part
        for batch in index.table().select([column, LINE]).to_batches()
        for part in (batch.slice(start, _PATHS_A_TASK) for start in range(0, len(batch), _PATHS_A_TASK))
    ]
    find = partial(_faults, str(root) if root is not None else folder_of(index.csv), check)
    faults, first = [], 0
    paths_of = (batch[column].to_pylist() for batch in batches)
    for batch, reasons in zip(batches, spread(find, paths_of), strict=True):
        places = np.array(list(reasons), np.int64)
        values = batch[column].take(pyarrow.array(places))
        lines = batch[LINE].to_numpy()[places]
        faults.append(faults_of(lines, column, values, list(reasons.values()), first + places))
        first += len(batch)
    return join_faults(index.csv, faults)


def _faults(root: str, check: ImageCheck, paths: list[str]) -> dict[int, str]:
    """For each path whose file is of no use its place and why; an empty path is a fault of the CSV, and none here."""
    folder = Folder(root)
    with ThreadPoolExecutor(_THREADS) as pool:
        reasons = pool.map(lambda path: _fault(folder, path, check) if path else None, paths)
        return {place: reason for place, reason in enumerate(reasons) if reason}


def _fault(folder: Folder, path: str, check: ImageCheck) -> str | None:
    try:
        files, place = folder.find(path)
        info = files.get_file_info(place)
        if info.type == pyarrow.fs.FileType.NotFound:
            return NO_SUCH_FILE
        if info.type != pyarrow.fs.FileType.File:
            return "expected a file; it is a folder"
        if info.size == 0:
            return "the file is empty"
        if check == "exists":
            return None
        with files.open_input_file(place) as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, info.size - _TAIL_BYTES))
            return _fault_of_bytes(head, file.read(), info.size)
    except (OSError, pyarrow.ArrowException, DataError) as error:
        return f"the file cannot be read: {str(error).splitlines()[0]}"


def _fault_of_bytes(head: bytes, tail: bytes, size: int) -> str | None:
    if head.startswith(_JPEG):
        whole = _JPEG_END in tail
    elif head.startswith(_PNG):
        whole = _PNG_END in tail
    elif head.startswith(_GIF):
        whole = tail.rstrip(b"\0").endswith(_GIF_END)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        whole = size >= 8 + int.from_bytes(head[4:8], "little")
    else:
        return "expected a JPEG, PNG, GIF or WebP image"
    return None if whole else "the image is cut off"
