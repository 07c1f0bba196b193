"""Optional dependencies: a missing one is reported with its `pip install` line where it is first needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

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
        raise MissingExtra(_message(what, [error.name or "a module"], name)) from error


def require_extra(name: str, *modules: str, what: str) -> None:
    """Refuse `what` before it starts, where a module of the extra `name` that it needs later is not installed.

    Raises:
        MissingExtra: if one of them is not installed.
    """
    if missing := [module for module in modules if not _is_installed(module)]:
        raise MissingExtra(_message(what, missing, name))


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _message(what: str, missing: list[str], extra: str) -> str:
    are = "is" if len(missing) == 1 else "are"
    return f"{what} needs {', '.join(missing)}, which {are} not installed: pip install 'blitz[{extra}]'"
