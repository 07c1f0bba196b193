"""Where work on many files is done: in this process, unless the place of the run offers more."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_here: ContextVar[Callable[..., Iterable[Any]]] = ContextVar("spread", default=map)


def spread(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterable[Result]:
    """`function` of each item, in their order; items are taken as results are."""
    return _here.get()(function, items)


@contextmanager
def spread_by(how: Callable[..., Iterable[Any]]) -> Iterator[None]:
    """Within this context work is spread by `how`, which takes and gives what `map` does."""
    token = _here.set(how)
    try:
        yield
    finally:
        _here.reset(token)
