"""Checking that the images named by a CSV exist and are whole, without decoding most of them."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow
import pyarrow.fs
from PIL import UnidentifiedImageError

from blitz.data.csv.reading.bad_rows import BadRows, faults_of, join_faults
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.csv.reading.layout import LINE
from blitz.data.parallel_map import parallel_map
from blitz.data.pillow import RefusedImage, open_image, reason_of, to_rgb
from blitz.errors import DataError
from blitz.storage import Folder, absolute, folder_of, is_folder

ImageCheck = Literal["exists", "whole", "decoded"]
"""`exists` only looks up each file's size, `whole` also reads its first and last bytes, `decoded` decodes it."""

# The threads wait for files and do not compute, so there may be more of them than cores.
_THREADS = 32
_PATHS_A_TASK = 4096
# An image's size follows its metadata, which is seldom longer than this.
_HEAD_BYTES = 1 << 16
# Cameras and editors write some bytes after the end marker.
_TAIL_BYTES = 4096

NO_SUCH_FILE = "there is no such file"

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_GIF, _GIF_END = (b"GIF87a", b"GIF89a"), b"\x3b"


def check_images(index: CsvIndex, column: str, root: str | Path | None = None, check: ImageCheck = "whole") -> BadRows:
    """Rows whose image is missing, unreadable, cut off, or refused by the decoder for its format or size.

    A relative path is relative to the folder `root`, by default the CSV's. Results are not cached: files change.
    """
    batches = [
        part
        for batch in index.batches([column, LINE])
        for part in (batch.slice(start, _PATHS_A_TASK) for start in range(0, len(batch), _PATHS_A_TASK))
    ]
    folder = absolute(root) if root is not None else folder_of(index.files[0].file.name)
    if not is_folder(folder):
        raise DataError(f"images should be in {folder}, which is not a folder; name theirs as the root of images")
    find = partial(_faults, folder, check)
    faults, first = [], 0
    paths_of = (batch[column].to_pylist() for batch in batches)
    for batch, reasons in zip(batches, parallel_map(find, paths_of), strict=True):
        indices = np.array(list(reasons), np.int64)
        values = batch[column].take(pyarrow.array(indices))
        lines = batch[LINE].to_numpy()[indices]
        faults.append(faults_of(lines, column, values, list(reasons.values()), first + indices))
        first += len(batch)
    return join_faults(index.names, faults)


def _faults(root: str, check: ImageCheck, paths: list[str]) -> dict[int, str]:
    """The index of each path whose file is invalid, and why; an empty path is a fault of the CSV, not of a file."""
    folder = Folder(root)
    with ThreadPoolExecutor(_THREADS) as pool:
        reasons = pool.map(lambda path: _fault(folder, path, check) if path else None, paths)
        return {i: reason for i, reason in enumerate(reasons) if reason}


def _fault(folder: Folder, path: str, check: ImageCheck) -> str | None:
    try:
        files, full = folder.find(path)
        info = files.get_file_info(full)
        if info.type == pyarrow.fs.FileType.NotFound:
            return NO_SUCH_FILE
        if info.type != pyarrow.fs.FileType.File:
            return "expected a file; it is a folder"
        if info.size == 0:
            return "the file is empty"
        if check == "exists":
            return None
        with files.open_input_file(full) as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, info.size - _TAIL_BYTES))
            if check == "whole" and _is_whole(head, file.read(), info.size) and _is_opened(head):
                return None
            file.seek(0)
            return _fault_of_bytes(file.read(), check)
    except (OSError, pyarrow.ArrowException, DataError) as error:
        return f"the file cannot be read: {str(error).splitlines()[0]}"


def _is_whole(head: bytes, tail: bytes, size: int) -> bool:
    """Whether the first and last bytes are those of a whole image of a usual format."""
    if head.startswith(_JPEG):
        return _JPEG_END in tail
    if head.startswith(_PNG):
        return _PNG_END in tail
    if head.startswith(_GIF):
        return tail.rstrip(b"\0").endswith(_GIF_END)
    return head.startswith(b"RIFF") and head[8:12] == b"WEBP" and size >= 8 + int.from_bytes(head[4:8], "little")


def _is_opened(head: bytes) -> bool:
    """Whether the header shows that the decoder will accept the format and the size."""
    try:
        open_image(head)
    except Exception:
        return False
    return True


def _fault_of_bytes(data: bytes, check: ImageCheck) -> str | None:
    """The fault of an image, found by decoding it."""
    try:
        image = open_image(data)
        if check == "decoded":
            # Imported here, because torch takes seconds.
            from blitz.data.images import decode_pixels

            decode_pixels(data, side=max(image.size))
        else:
            to_rgb(image)
    except UnidentifiedImageError:
        known = data.startswith((_JPEG, _PNG, *_GIF, b"RIFF"))
        return "the image is cut off or broken" if known else "expected an image"
    except RefusedImage as error:
        return f"the image cannot be decoded: {error}"
    except Exception as error:
        return f"the image is cut off or broken: {reason_of(error)}"
    return None
