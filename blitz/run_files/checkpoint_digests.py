"""The check that the files of a checkpoint hold what was written: a SHA-256 of each, in its state.json.

hashlib releases the GIL, and SHA-256 is about as fast as a disk: 1.8 GB/s where the processor has
instructions for it, as most do.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

STATE = "state.json"


def sha256_of(chunks: Iterable[bytes]) -> str:
    """The SHA-256 of all chunks, hexadecimal."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


Seal = tuple[int, str]
"""The size and the SHA-256 of a file."""


def seal_of(data: bytes) -> Seal:
    """The seal of a file's content."""
    return len(data), sha256_of([data])


def sealed(state: Mapping[str, Any], files: Mapping[str, Seal]) -> dict[str, Any]:
    """A checkpoint's state with sizes and digests of its files, and a digest of itself."""
    sizes = {name: size for name, (size, _) in files.items()}
    digests = {name: digest for name, (_, digest) in files.items()}
    # In the form in which it is read back: JSON has no tuples.
    whole: dict[str, Any] = json.loads(json.dumps({**state, "files": sizes, "sha256": digests}))
    whole["sha256"][STATE] = _of_state(whole)
    return whole


def is_sealed(state: Mapping[str, Any]) -> bool:
    """Whether a state.json is as it was written; True without digests, which older versions did not write."""
    digests: Mapping[str, str] = state.get("sha256", {})
    if not digests:
        return True
    names = {*state["files"], STATE}
    return digests.keys() == names and digests[STATE] == _of_state(state)


def _of_state(state: Mapping[str, Any]) -> str:
    files = {name: digest for name, digest in state["sha256"].items() if name != STATE}
    return sha256_of([json.dumps({**state, "sha256": files}, sort_keys=True).encode()])
