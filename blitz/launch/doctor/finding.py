"""What a check finds."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Literal, TypeVar

from blitz.errors import UserError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Finding:
    """One line: an error is what the run cannot do with, a warning what it may be slow or fail by."""

    level: Literal["ok", "warning", "error"]
    subject: str
    text: str
    """What was found; unless it is ok, also what to do."""

    def __str__(self) -> str:
        return f"{self.level:8} {self.subject:17} {self.text}"


def checked(subject: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; a UserError that it raises is one, and no check that fails ends the others."""
    try:
        yield from check()
    except UserError as error:
        yield Finding("error", subject, " ".join(str(error).splitlines()))
    except Exception as error:
        yield Finding("warning", subject, f"could not be checked ({type(error).__name__}: {_first_line(error)})")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def merged(machines: Mapping[str, list[Finding]]) -> Iterator[Finding]:
    """The findings on several machines, by the names of these: those that agree in one line."""
    subjects = dict.fromkeys(finding.subject for findings in machines.values() for finding in findings)
    for subject in subjects:
        where: dict[Finding, list[str]] = {}
        for machine, findings in machines.items():
            for finding in findings:
                if finding.subject == subject:
                    where.setdefault(finding, []).append(machine)
        for finding, names in where.items():
            if len(names) == len(machines):
                yield finding
            else:
                yield Finding(finding.level, subject, f"on {', '.join(names)}: {finding.text}")


class Deadline:
    """So many seconds from now on."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether they have passed."""
        return time.monotonic() > self._end

    @property
    def left_s(self) -> float:
        """Seconds that are left, at least a little."""
        return max(0.1, self._end - time.monotonic())


def begun(work: Callable[[], Result]) -> Future[Result]:
    """Begin in the background what may take longer than one can wait."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # A daemon, unlike the threads of an executor: nothing waits for it in the end.
    Thread(target=run, daemon=True).start()
    return future


def awaited(future: Future[Result], deadline: Deadline, what: str) -> Result:
    """What was begun.

    Raises:
        UserError: if it is not done in time.
    """
    try:
        return future.result(deadline.left_s)
    except TimeoutError as error:
        if future.done():
            raise
        raise UserError(f"{what} has not answered within {deadline.seconds:g} s; try it by itself") from error
