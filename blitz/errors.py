"""Errors that a user can mend. Every other error is our bug and keeps its traceback."""


class UserError(ValueError):
    """A mistake that its user can mend, explained in one line: what, where, and what to do.

    Commands print it without a traceback and exit with code 2.
    """


class DataError(UserError):
    """Data that is missing or does not hold what it should; the message names the file and, if known, the line."""


class DamagedFile(UserError):
    """A file of a run that does not hold what was written; the message names it, and says how to mend that."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path
        """The path within the run, such as `recipe.json`."""


class StorageError(UserError, OSError):
    """A file that cannot be read or written: the disk is full or read-only, or a link leads elsewhere."""

    reason: str = ""
    """The system's message, without the file and the advice."""


class RunFailed(RuntimeError):
    """A run that stopped before its end, explained in one line; the same command resumes it."""


class Diverged(RunFailed):
    """A run whose loss or weights are not finite."""


class Stopped(BaseException):
    """A run that got a stop request and has saved; the same command resumes it.

    Derives from BaseException, like KeyboardInterrupt, so that `except Exception` around a trial does not swallow it.
    """


def require(holds: bool, message: str) -> None:
    """Raise a UserError with `message` unless `holds`."""
    if not holds:
        raise UserError(message)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class where it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
