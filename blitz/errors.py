"""What a user can mend. Everything else is our bug and keeps its traceback."""


class UserError(ValueError):
    """A mistake that its user can mend, told in one line: what, where, and what to do.

    Commands print it without a traceback and exit with code 2.
    """


class DataError(UserError):
    """Data that is missing or does not hold what it should; the message names the file and, if known, the line."""


class DamagedFile(UserError):
    """A file of a run that does not hold what was written; the message names it, and says how to go on."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path
        """Within the run, such as `recipe.json`."""


class StorageError(UserError, OSError):
    """A file that a storage does not take or give: a full disk, one that is read-only, a link that leads elsewhere."""

    reason: str = ""
    """What the system says, without which file it is and what to do."""


class RunFailed(RuntimeError):
    """A run that stopped before its end, told in one line; the same command continues it."""


class Stopped(BaseException):
    """A run that was told to leave, and has saved; the same command goes on where it was.

    No Exception, as KeyboardInterrupt is none: who goes on after a trial that failed has to leave too.
    """


def require(holds: bool, message: str) -> None:
    """Raise a UserError with `message` unless `holds`."""
    if not holds:
        raise UserError(message)
