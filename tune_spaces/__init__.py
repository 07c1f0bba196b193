"""One file, one space of settings that a sweep varies: the file's name is its name on the command line.

A file holds `SPACE`, a `blitz.launch.tune.space.Space`, with Ray Tune's own distributions.
"""

import ast
import importlib
import pkgutil
from importlib.util import find_spec
from pathlib import Path

from blitz.errors import require
from blitz.launch.tune.space import Space


def space_names() -> list[str]:
    """Names of all spaces, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def about(name: str) -> str:
    """What a space's file says about it in its first line."""
    spec = find_spec(f"tune_spaces.{name}")
    assert spec is not None
    assert spec.origin is not None
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or "").partition("\n")[0]


def find_space(name: str) -> Space:
    """The space of `tune_spaces/<name>.py`.

    Raises:
        UserError: if there is no such file, or it has no SPACE.
    """
    require(name in space_names(), f"there is no space {name!r}; there are {', '.join(space_names())}")
    module = importlib.import_module(f"tune_spaces.{name}")
    space = getattr(module, "SPACE", None)
    require(isinstance(space, Space), f"{module.__file__} has no SPACE; write SPACE = Space(recipe=…, parameters=…)")
    assert isinstance(space, Space)
    return space
