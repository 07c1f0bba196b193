"""Optional dependencies: a missing one is reported with its `pip install` line where it is first needed."""

from collections.abc import Iterator
from contextlib import contextmanager

from blitz.errors import UserError


class MissingExtra(UserError):
    """A library of an extra that is not installed."""


@contextmanager
def extra(name: str, *, what: str) -> Iterator[None]:
    """Around imports: `what` needs the extra `name`.

    Raises:
        MissingExtra: if one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{what} needs {error.name}, which is not installed: pip install 'blitz[{name}]'") from error
