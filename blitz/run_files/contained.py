"""Checks that files of a run are inside its directory, so that no link makes a command read or write elsewhere."""

import os
import stat

from blitz.errors import StorageError


def require_plain_path(root: str, path: str) -> None:
    """Refuse a relative path that names a parent directory.

    Raises:
        StorageError: if it does.
    """
    if ".." in path.split("/") or "\0" in path:
        raise StorageError(f"{root}/{path!r} leads out of the run, and is not opened")


def require_inside(path: str, boundary: str) -> None:
    """Refuse a local path that leads out of the directory `boundary`, or to what is neither a file nor a directory.

    Symbolic links are followed as far as they stay inside; `boundary` itself may be reached through any. A link made
    between this check and the opening is not noticed.

    Raises:
        StorageError: if it does.
    """
    real, inside = os.path.realpath(path), os.path.realpath(boundary)
    if os.path.commonpath([real, inside]) != inside:
        raise StorageError(f"{path} is a symbolic link out of the run, to {real}, and is not followed; delete it")
    try:
        mode = os.stat(real).st_mode
    except OSError:
        # Opening it will raise the same error.
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        # Opening a pipe would wait until its other end is opened.
        raise StorageError(f"{path} is neither a file nor a directory, and is not opened; delete it")
