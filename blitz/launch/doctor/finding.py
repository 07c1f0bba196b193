"""The result of a check, and how checks run: in the background and before a deadline."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Literal, TypeVar

from blitz.errors import UserError, first_line

Result = TypeVar("Result")


@dataclass(frozen=True)
class Finding:
    """One line of the report: an error keeps the run from starting, a warning may make it slow or fail."""

    level: Literal["ok", "warning", "error"]
    subject: str
    text: str
    """What was found and, unless it is ok, what to do."""

    def __str__(self) -> str:
        return f"{self.level:8} {self.subject:17} {self.text}"


def checked(subject: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; an exception that it raises becomes one too, so that the other checks still run."""
    try:
        yield from check()
    except UserError as error:
        yield Finding("error", subject, " ".join(str(error).splitlines()))
    except Exception as error:
        yield Finding("warning", subject, f"could not be checked ({type(error).__name__}: {first_line(error)})")


def merged(machines: Mapping[str, list[Finding]]) -> Iterator[Finding]:
    """The findings on several machines, by machine name; equal ones become one line."""
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
    """A point in time, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return time.monotonic() > self._end

    @property
    def left_s(self) -> float:
        """Seconds until then, at least 0.1."""
        return max(0.1, self._end - time.monotonic())


def start(work: Callable[[], Result]) -> Future[Result]:
    """Start work in the background that may outlast the deadline."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # A daemon, because Python waits for the threads of an executor at exit.
    Thread(target=run, daemon=True).start()
    return future


def awaited(future: Future[Result], deadline: Deadline, what: str) -> Result:
    """The result of started work.

    Raises:
        UserError: if it is not done in time.
    """
    try:
        return future.result(deadline.left_s)
    except TimeoutError as error:
        if future.done():
            raise
        raise UserError(f"{what} has not answered within {deadline.seconds:g} s; try it by itself") from error
