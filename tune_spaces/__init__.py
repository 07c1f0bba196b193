"""Search spaces of sweeps, one a file; the file's name is its name on the command line.

A file holds `SPACE`, a `blitz.Space`, with Ray Tune's own distributions. It lies in this folder, in a package that
declares an entry point, or in any file or module of a user's project.
"""

import ast
import pkgutil
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from blitz.errors import require
from blitz.launch.tune.space import Space
from blitz.project import is_reference, load_module

_GROUP = "blitz.spaces"


def space_names() -> list[str]:
    """Names of the spaces that ship, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def all_space_names() -> list[str]:
    """Names of the spaces that ship and of those in installed packages, sorted."""
    return sorted({*space_names(), *(one.name for one in entry_points(group=_GROUP))})


def about(name: str) -> str:
    """The first line of the docstring of a space's file; empty if that would need an import."""
    if name in space_names():
        spec = find_spec(f"tune_spaces.{name}")
        file = spec.origin if spec else None
    else:
        file = name.partition(":")[0] if name.partition(":")[0].endswith(".py") else None
    if file is None or not Path(file).is_file():
        return ""
    return (ast.get_docstring(ast.parse(Path(file).read_text())) or "").partition("\n")[0]


def find_space(reference: str) -> Space:
    """The space named by a name, a file (`path/space.py`) or a module (`package.space`).

    It is the `SPACE` of that module, or the name after a colon: `package.space:WIDE`.

    Raises:
        UserError: if there is none, or if it cannot be imported.
    """
    module_name, _, member = reference.partition(":")
    if not is_reference(reference):
        brought = [one for one in entry_points(group=_GROUP) if one.name == reference]
        shipped = reference in space_names()
        beside = f"; perhaps ./{reference}.py" if Path(f"{reference}.py").exists() else ""
        require(
            shipped or bool(brought),
            f"there is no space {reference!r}{beside}; there are {', '.join(all_space_names())}",
        )
        require(len(brought) + shipped == 1, f"several spaces are named {reference!r}; name the module of one")
        module_name = f"tune_spaces.{reference}" if shipped else brought[0].module
        member = member if shipped else brought[0].attr
    module = load_module(module_name)
    space = getattr(module, member or "SPACE", None)
    require(
        isinstance(space, Space),
        f"{module.__file__} has no {member or 'SPACE'}; write SPACE = Space(recipe=…, parameters=…)",
    )
    assert isinstance(space, Space)
    return space
