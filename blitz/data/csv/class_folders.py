"""A folder of class folders, <class>/…/<image>, as an equivalent CSV."""

import csv
import io

import pyarrow.fs

from blitz.errors import DataError
from blitz.storage import open_location

IMAGE, CLASS = "image", "class"
"""The columns."""

# Those that torchvision's `ImageFolder` reads as images.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# Folders that operating systems and NAS devices create, which may hold copies and previews of images.
_BY_SYSTEMS = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found")


def listing(folder: str) -> bytes:
    """Its images and their classes in torchvision's order, by class and then by path; paths are relative to it.

    Hidden files, such as `.ipynb_checkpoints`, and those of the system are neither images nor classes.

    Raises:
        DataError: if there is no class folder, or one without an image.
    """
    files, root = open_location(folder)
    try:
        found = files.get_file_info(pyarrow.fs.FileSelector(root, recursive=True))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {str(error).splitlines()[0]}") from error
    images: dict[str, list[str]] = {}
    for info in found:
        parts = info.path[len(root) :].strip("/").split("/")
        if any(part.startswith(".") or part.lower() in _BY_SYSTEMS for part in parts):
            continue
        if len(parts) == 1 and info.type == pyarrow.fs.FileType.Directory:
            images.setdefault(parts[0], [])
        elif len(parts) > 1 and info.type == pyarrow.fs.FileType.File and parts[-1].lower().endswith(_SUFFIXES):
            images.setdefault(parts[0], []).append("/".join(parts))
    if not images:
        raise DataError(
            f"{folder} has no folders in it; there must be one for each class, with its images; name "
            "CSVs with --data.train-csv"
        )
    for name, paths in images.items():
        if not paths:
            raise DataError(f"{folder}/{name} holds no image; each class must have some: {', '.join(_SUFFIXES)}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([IMAGE, CLASS])
    writer.writerows([path, name] for name, paths in sorted(images.items()) for path in sorted(paths))
    return text.getvalue().encode()
