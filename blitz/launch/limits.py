"""Limits of this process that Ray depends on. Nothing here imports torch or Ray."""

import resource

from blitz.errors import require

RECOMMENDED_OPEN_FILES, MIN_OPEN_FILES = 4096, 128
"""Ray warns below the first, and does not start with half of the second."""
_RAY_RAISES_TO = 65536


def open_files_limit() -> int:
    """How many files and connections a process may have open, once Ray has raised the limit as far as it does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = _RAY_RAISES_TO if hard == resource.RLIM_INFINITY else min(hard, _RAY_RAISES_TO)
    return raised if soft == resource.RLIM_INFINITY else max(soft, raised)


def raise_the_limit(limit: int) -> str:
    """Why a limit on open files is too low, and what to do."""
    return f"{limit} a process are few for Ray; allow 8192 with ulimit -n 8192"


def require_open_files() -> None:
    """Check that Ray can start.

    Raises:
        UserError: if a process may open too few files.
    """
    limit = open_files_limit()
    require(limit >= MIN_OPEN_FILES, f"open files: {raise_the_limit(limit)}")
