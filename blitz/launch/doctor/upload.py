"""How much `ray job submit --working-dir .` would upload, by Ray's own rules."""

import logging
from collections import Counter
from pathlib import Path

from blitz.launch.doctor.finding import Deadline, Finding

_MIB = 1 << 20
_MUCH = 20 * _MIB
_SHOWN_FOLDERS = 4
_SECONDS_TO_LOOK = 3.0


class _TooMany(Exception):
    """There are more files than there is time to look at."""


def upload(folder: Path) -> list[Finding]:
    """What .gitignore and .rayignore leave of `folder`, and where in it most of that lies."""
    sizes, is_all = upload_sizes(folder)
    total, largest = sum(sizes.values()), sizes.most_common(_SHOWN_FOLDERS)
    parts = ", ".join(f"{name} {size / _MIB:.1f}" for name, size in largest if size >= _MIB / 10)
    text = f"{total / _MIB:.1f} MiB would go with --working-dir .{f' ({parts})' if parts else ''}"
    if total < _MUCH and is_all:
        return [Finding("ok", "upload", text)]
    mend = "name what no job reads in .rayignore; Ray refuses 500 MiB and more"
    return [Finding("warning", "upload", f"{text if is_all else f'at least {text}'}; {mend}")]


def upload_sizes(folder: Path) -> tuple[Counter[str], bool]:
    """Bytes by the first part of the path within `folder`, and whether there was time to look at everything."""
    # Ray's own walk: which ignore files count, and how, is not worth a second opinion.
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    sizes: Counter[str] = Counter()
    deadline = Deadline(_SECONDS_TO_LOOK)

    def add(path: Path) -> None:
        if deadline.is_over:
            raise _TooMany
        if path.is_file():
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size

    silent = logging.Logger("blitz.upload", level=logging.CRITICAL + 1)
    try:
        excludes = [_get_excludes(folder, get_runtime_env_default_excludes())]
        _dir_travel(folder, excludes, add, include_gitignore=True, logger=silent)
    except _TooMany:
        return sizes, False
    return sizes, True
