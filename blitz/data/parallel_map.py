"""A `map` for work on many files: in this process, or on the nodes of a cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_map: ContextVar[Callable[..., Iterable[Any]]] = ContextVar("parallel_map", default=map)


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterable[Result]:
    """`function` of each item, in order; items are consumed as results are."""
    return _map.get()(function, items)


@contextmanager
def parallel_map_by(how: Callable[..., Iterable[Any]]) -> Iterator[None]:
    """Within this context `parallel_map` calls `how`, which has the signature of `map`."""
    token = _map.set(how)
    try:
        yield
    finally:
        _map.reset(token)
