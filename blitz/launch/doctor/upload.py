"""What goes to a cluster: the user's code to each worker, and what `ray job submit --working-dir .` would upload."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from blitz.launch.cluster.ray_internals import walk_upload
from blitz.launch.doctor.finding import Deadline, Finding

_MIB = 1 << 20
_LARGE = 20 * _MIB
_SHOWN_FOLDERS = 4
_SHOWN_FILES = 8
_SECONDS_TO_WALK = 3.0


class _OutOfTime(Exception):
    """The walk takes too long."""


def code_to_send(sources: Mapping[str, str]) -> Finding:
    """Which files of the user's project a recipe consists of, that go to every worker with it."""
    if not sources:
        return Finding("ok", "code", "the recipe is installed: workers need no file of a project")
    shown, size = [*sources][:_SHOWN_FILES], sum(len(text.encode()) for text in sources.values())
    more = f" and {len(sources) - len(shown)} more" if len(sources) > len(shown) else ""
    text = f"{', '.join(shown)}{more} ({size / 1024:.1f} KiB) go to every worker of a run, without the files"
    return Finding("ok", "code", text)


def upload(folder: Path) -> list[Finding]:
    """How much of `folder` .gitignore and .rayignore leave to upload, and the largest parts of it."""
    sizes, is_all = upload_sizes(folder)
    total, largest = sum(sizes.values()), sizes.most_common(_SHOWN_FOLDERS)
    parts = ", ".join(f"{name} {size / _MIB:.1f}" for name, size in largest if size >= _MIB / 10)
    text = f"{total / _MIB:.1f} MiB would go with --working-dir .{f' ({parts})' if parts else ''}"
    if total < _LARGE and is_all:
        return [Finding("ok", "upload", text)]
    mend = "name what no job reads in .rayignore; Ray refuses 500 MiB and more"
    return [Finding("warning", "upload", f"{text if is_all else f'at least {text}'}; {mend}")]


def upload_sizes(folder: Path) -> tuple[Counter[str], bool]:
    """Bytes by the first part of the path within `folder`, and whether the walk finished in time."""
    sizes: Counter[str] = Counter()
    deadline = Deadline(_SECONDS_TO_WALK)

    def add(path: Path) -> None:
        if deadline.is_over:
            raise _OutOfTime
        if path.is_file():
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size

    try:
        walk_upload(folder, add)
    except _OutOfTime:
        return sizes, False
    return sizes, True
