"""Waiting for a condition."""

import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

MOST_SECONDS = 600.0
"""Ends a test that hangs; generous, because a loaded machine is slow."""


def wait_until(
    condition: Callable[[], T],
    *,
    process: "subprocess.Popen[Any] | None" = None,
    says: Callable[[], object] = str,
    seconds: float = MOST_SECONDS,
    every: float = 0.02,
) -> T:
    """The first true value of a condition, which is looked at every so many seconds.

    Fails with what `says` returns if `process`, which should make it true, ends before, or if it takes `seconds`.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert process is None or process.poll() is None, says()
        assert time.monotonic() < end, says()
        time.sleep(every)
    return found
