"""What the objects given to `blitz.train` are: names that find them again, and hashes that tell when they changed."""

import hashlib
import inspect
import re
import sys
from functools import partial
from types import CodeType
from typing import Any

from torch import nn

from blitz.errors import UserError
from blitz.project import find_object, is_project_code, reference_to

_DIGITS = 12
MADE_WITH_ARGUMENTS = "(…)"
"""Behind the name of a class or function, of which an object was made in a way that the name does not tell."""
MADE_WITHOUT = "()"


def name_of_object(value: Any) -> str:
    """What finds a class or a function again, as `flowers.py:Net`; of an object, its class and `()` or `(…)`.

    `()` is a loss of a class that makes the same one without arguments; whatever else is `(…)`, as arguments and
    weights are in no name.
    """
    if isinstance(value, partial):
        return name_of_object(value.func).removesuffix(MADE_WITHOUT) + MADE_WITH_ARGUMENTS
    if isinstance(value, type) or inspect.isroutine(value):
        return reference_to(value)
    return reference_to(type(value)) + (MADE_WITHOUT if _is_default(value) else MADE_WITH_ARGUMENTS)


def _is_default(value: Any) -> bool:
    """Whether a module without tensors is what its class gives without arguments."""
    if not isinstance(value, nn.Module) or value.state_dict() or [*value.children()]:
        return False
    try:
        default = type(value)()
    except TypeError:
        return False
    return bool(_plain_state(default) == _plain_state(value))


def _plain_state(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def object_of(name: str, *, what: str) -> Any:
    """The object that `name_of_object` named.

    Raises:
        UserError: if its name does not tell all of it; the message says what to pass.
    """
    hint = f"open the run with it: blitz.open(…, {what}=…)"
    if name.endswith(MADE_WITH_ARGUMENTS):
        raise UserError(f"{what}={name} was made with arguments that the run has not stored; {hint}")
    found = find_object(name.removesuffix(MADE_WITHOUT), hint=hint)
    return found() if name.endswith(MADE_WITHOUT) else found


def short_name(name: str) -> str:
    """The last part: `Net` of `flowers.py:Net(…)`."""
    plain = name.removesuffix(MADE_WITH_ARGUMENTS).removesuffix(MADE_WITHOUT)
    return plain.rpartition(":")[2].rpartition(".")[2]


def hash_of(*parts: str | bytes) -> str:
    """A short hash, hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:_DIGITS]


def code_of(value: Any) -> str:
    """The text of what an object computes with, as far as it is the user's: its class or function and its settings.

    Weights are no part of it, nor is what a class or function takes from elsewhere in its module.
    """
    if value is None or isinstance(value, str):
        return str(value)
    if isinstance(value, partial):
        return f"{code_of(value.func)} {_without_addresses(repr((value.args, value.keywords)))}"
    if isinstance(value, type):
        return "\n".join(_source(one) for one in value.__mro__ if _is_users(one))
    if inspect.isfunction(value) and _is_users(value):
        return _compiled(value.__code__) if value.__name__ == "<lambda>" else _source(value)
    if inspect.isroutine(value):
        return value.__qualname__
    return f"{_without_addresses(repr(value))}\n{code_of(type(value))}"


def _is_users(value: Any) -> bool:
    module = sys.modules.get(value.__module__)
    return module is not None and (value.__module__ == "__main__" or is_project_code(module))


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        # Typed into a console, which keeps no text.
        return str(value.__qualname__)


def _compiled(code: CodeType) -> str:
    # The lines of a lambda's source also hold whatever stands beside it.
    constants = [_compiled(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)
