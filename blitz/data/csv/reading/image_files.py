"""Whether the images that a CSV names are there, can be decoded, and are whole; without decoding most of them."""

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
from blitz.data.parallel_map import spread
from blitz.data.pillow import RefusedImage, open_image, reason_of, to_rgb
from blitz.errors import DataError
from blitz.storage import Folder, absolute, folder_of, is_folder

ImageCheck = Literal["exists", "whole", "decoded"]
"""`exists` asks for each file's size alone, `whole` also reads its first and last bytes, `decoded` decodes it."""

# Files are waited for, not computed on, so there may be more threads than cores.
_THREADS = 32
_PATHS_A_TASK = 4096
# An image's size stands behind its metadata, which seldom is longer.
_HEAD_BYTES = 1 << 16
# Cameras and editors write some bytes after the end marker.
_TAIL_BYTES = 4096

NO_SUCH_FILE = "there is no such file"

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_GIF, _GIF_END = (b"GIF87a", b"GIF89a"), b"\x3b"


def check_images(index: CsvIndex, column: str, root: str | Path | None = None, check: ImageCheck = "whole") -> BadRows:
    """Rows whose image is missing, unreadable, cut off, or one that decoding refuses by its kind or its size.

    A relative path is one in the folder `root`, by default the CSV's. What is found is not cached: files come and go.
    """
    batches = [
        part
        for batch in index.batches([column, LINE])
        for part in (batch.slice(start, _PATHS_A_TASK) for start in range(0, len(batch), _PATHS_A_TASK))
    ]
    folder = absolute(root) if root is not None else folder_of(index.csv)
    if not is_folder(folder):
        raise DataError(f"images are to be in {folder}, which is no folder; name theirs as the root of images")
    find = partial(_faults, folder, check)
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
            if check == "whole" and _is_whole(head, file.read(), info.size) and _is_opened(head):
                return None
            file.seek(0)
            return _fault_of_bytes(file.read(), check)
    except (OSError, pyarrow.ArrowException, DataError) as error:
        return f"the file cannot be read: {str(error).splitlines()[0]}"


def _is_whole(head: bytes, tail: bytes, size: int) -> bool:
    """Whether the first and last bytes are those of a whole image of the usual kinds."""
    if head.startswith(_JPEG):
        return _JPEG_END in tail
    if head.startswith(_PNG):
        return _PNG_END in tail
    if head.startswith(_GIF):
        return tail.rstrip(b"\0").endswith(_GIF_END)
    return head.startswith(b"RIFF") and head[8:12] == b"WEBP" and size >= 8 + int.from_bytes(head[4:8], "little")


def _is_opened(head: bytes) -> bool:
    """Whether the first bytes of a file suffice to see that decoding will not refuse its kind and its size."""
    try:
        open_image(head)
    except Exception:
        return False
    return True


def _fault_of_bytes(data: bytes, check: ImageCheck) -> str | None:
    """Of an image that is decoded to see whether it can be."""
    try:
        image = open_image(data)
        if check == "decoded":
            # Here, because torch takes seconds to import.
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
