"""How the user's own code reaches Ray's workers: its modules are pickled by value, with all that is sent there.

The workers then need neither the user's files nor its folder. What is installed must be installed on every node.
"""

import functools
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray import cloudpickle

from blitz.errors import UserError, first_line
from blitz.project import project_modules

_MOST_PARTS = 1000
"""So many items of a container are tried one by one; a longer one is named as a whole."""


@contextmanager
def shipped() -> Iterator[None]:
    """Within this context classes and functions of the user's modules are pickled by value, as those of `__main__` are.

    It may be entered again: each leaves registered what was so before.
    """
    registered = cloudpickle.list_registry_pickle_by_value()
    modules = [
        module
        for module in project_modules()
        if module.__name__ not in registered and sys.modules.get(module.__name__) is module
    ]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            # Meanwhile another thread may have left the same context.
            if module.__name__ in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.unregister_pickle_by_value(module)


def require_picklable(**parts: Any) -> None:
    """Refuse what cannot be sent to another process, before anything is started.

    Args:
        parts: What is to be sent, by what a message calls it.

    Raises:
        UserError: which names the attribute.
    """
    with shipped():
        for name, part in parts.items():
            reason = _why_not(part)
            if reason is not None:
                path, culprit, why = _innermost(name, part, reason)
                raise UserError(
                    f"{path} cannot be sent to Ray workers: it holds {_kind(culprit)} ({why}); make it where it is "
                    "used, as in __getitem__ or build_model, or leave it out of __getstate__"
                )


class _Nowhere:
    """A file that keeps nothing: what is pickled may be large."""

    def write(self, data: Any) -> int:
        return len(data)


def _why_not(value: Any) -> str | None:
    """Why a value cannot be pickled; None if it can."""
    try:
        # The buffers of arrays are left out: they can always be sent.
        cloudpickle.CloudPickler(_Nowhere(), protocol=5, buffer_callback=lambda buffer: None).dump(value)
    except Exception as error:
        return first_line(error)
    return None


def _innermost(path: str, value: Any, reason: str) -> tuple[str, Any, str]:
    """The innermost part of a value that cannot be pickled: its path, itself, and why.

    `ray.util.inspect_serializability` looks for the same, but calls every property, and stops at the third level.
    """
    seen: set[int] = set()
    while id(value) not in seen:
        seen.add(id(value))
        for name, part in _parts(value):
            why = _why_not(part)
            if why is not None:
                path, value, reason = f"{path}{name}", part, why
                break
    return path, value, reason


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is pickled with, by the name that it has there."""
    if isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif inspect.isfunction(value):
        found = inspect.getclosurevars(value)
        for name, part in {**found.nonlocals, **found.globals}.items():
            yield f" → {name}", part
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in list(value.items())[:_MOST_PARTS])
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", part) for index, part in enumerate(value[:_MOST_PARTS]))
    elif isinstance(value, type):
        yield from ((f".{name}", part) for name, part in vars(value).items() if not name.startswith("__"))
    else:
        state = getattr(value, "__dict__", {})
        if "__getstate__" in {name for kind in type(value).__mro__[:-1] for name in vars(kind)}:
            given = value.__getstate__()
            state = given if isinstance(given, dict) else state
        yield from ((f".{name}", part) for name, part in state.items())
        yield "'s class", type(value)


def _kind(value: Any) -> str:
    if inspect.isfunction(value):
        return f"the function {value.__qualname__}"
    return f"the class {value.__qualname__}" if isinstance(value, type) else f"a {type(value).__qualname__}"
