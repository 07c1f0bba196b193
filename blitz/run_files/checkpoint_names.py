"""The names of a checkpoint's files."""

import re
from collections.abc import Collection

KINDS = ("weights", "optimizer")
"""What the files beside state.json hold: each is one file, or one for each rank of a sharded model."""
_NAME = re.compile(r"(weights|optimizer)(?:-(\d{5})-of-(\d{5}))?\.safetensors")


def file_name(kind: str, part: int, parts: int) -> str:
    """The name of a file: `weights.safetensors`, or that of part 0 of 2, `weights-00001-of-00002.safetensors`."""
    return f"{kind}.safetensors" if parts == 1 else f"{kind}-{part + 1:05}-of-{parts:05}.safetensors"


def kind_of(name: str) -> str:
    """What a file holds; empty for other names."""
    found = _NAME.fullmatch(name)
    return found[1] if found else ""


def are_whole(names: Collection[str]) -> bool:
    """Whether these are the names of all files of a checkpoint."""
    counts = {int(found[3] or 1) for name in names if (found := _NAME.fullmatch(name))}
    parts = max(counts, default=0)
    # No more than there are names: a damaged name may hold any number.
    return 0 < parts <= len(names) and {*names} >= {file_name(kind, n, parts) for kind in KINDS for n in range(parts)}
