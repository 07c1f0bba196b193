"""One file, one task: the file's name is the recipe's name on the command line. Here recipes are found and stored.

A recipe lies in this folder, in a package that declares an entry point, or in any file or module of a user's project.
"""

import inspect
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from blitz.errors import UserError, require
from blitz.project import Code, digests, is_reference, load_module, name_of, reference_to
from blitz.recipe import Recipe
from blitz.settings import from_json, to_json

_GROUP = "blitz.recipes"
SOURCE_KEY = "source_sha256"
"""Under it recipe.json holds the SHA-256 of each source file; longer than a field of a recipe is likely to be named."""


def recipe_names() -> list[str]:
    """Names of the recipes that ship, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def all_recipe_names() -> list[str]:
    """Names of the recipes that ship and of those that installed packages bring, sorted."""
    return sorted({*recipe_names(), *(one.name for one in entry_points(group=_GROUP))})


def find_recipe(reference: str) -> type[Recipe]:
    """The recipe class that a name, a file (`path/flowers.py`) or a module (`package.flowers`) means.

    A file or a module that defines several takes the class behind a colon: `package.flowers:Flowers`.

    Raises:
        UserError: if there is none, if it cannot be imported, or if several have the name.
    """
    if is_reference(reference):
        module, _, member = reference.partition(":")
        return _recipe_of(_module(module), member or None, reference)
    brought = [one for one in entry_points(group=_GROUP) if one.name == reference]
    shipped = reference in recipe_names()
    require(
        len(brought) + shipped <= 1,
        f"{len(brought) + shipped} recipes are named {reference!r}: "
        f"{', '.join([*(['one of blitz'] * shipped), *map(_origin, brought)])}; name the module, as in package.module",
    )
    if shipped:
        return _recipe_of(load_module(f"blitz.recipes.{reference}"), None, reference)
    if brought:
        return _recipe_of(load_module(brought[0].module), brought[0].attr or None, reference)
    beside = f"; perhaps ./{reference}.py" if Path(f"{reference}.py").exists() else ""
    raise UserError(f"there is no recipe {reference!r}{beside}; there are {', '.join(all_recipe_names())}")


def _origin(entry: EntryPoint) -> str:
    return f"{entry.value} of {entry.dist.name}" if entry.dist else entry.value


def _module(name: str) -> ModuleType:
    # A class of the program itself, which a second import would make another class.
    return sys.modules["__main__"] if name == "__main__" else load_module(name)


def _recipe_of(module: ModuleType, member: str | None, reference: str) -> type[Recipe]:
    where = getattr(module, "__file__", None) or module.__name__
    if member is None:
        found = [one for one in vars(module).values() if _is_recipe(one) and one.__module__ == module.__name__]
        # A base class that others of the file complete.
        found = [one for one in found if not inspect.isabstract(one)] or found
        if len(found) != 1:
            names = f" ({', '.join(one.__name__ for one in found)})" if found else ""
            mend = f"name one, as in {reference}:{found[0].__name__}" if found else "a recipe derives from blitz.Recipe"
            raise UserError(f"{where} defines {len(found)} recipes{names}; {mend}")
        return _complete(found[0], where)
    value: Any = module
    for part in member.split("."):
        value = getattr(value, part, None)
    require(value is not None, f"{where} has no {member}")
    require(_is_recipe(value), f"{member} of {where} is no recipe: it must be a class derived from blitz.Recipe")
    return _complete(value, where)


def _complete(kind: type[Recipe], where: str) -> type[Recipe]:
    """A recipe class, once it is known that its defaults make a recipe."""
    name = f"{kind.__name__} of {where}"
    missing = ", ".join(sorted(kind.__abstractmethods__))
    require(not missing, f"{name} lacks {missing}, which every recipe has; define what is missing")
    plain = [] if "__dataclass_fields__" in vars(kind) else [*inspect.get_annotations(kind)]
    require(
        not plain,
        f"{name} has settings ({', '.join(plain)}) but is no dataclass; write @dataclass(frozen=True) above the class",
    )
    bare = [one.name for one in fields(kind) if one.init and one.default is MISSING and one.default_factory is MISSING]
    require(not bare, f"{name} has no default for {', '.join(bare)}; give every field one, which a flag then overrides")
    return kind


def _is_recipe(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Recipe)


def reference_of(kind: type[Recipe]) -> str:
    """What `find_recipe` finds a class by: the name of one that ships, else a file or module and the class."""
    shipped = kind.__module__.rpartition(".")[0] == __name__
    return name_of(kind) if shipped else reference_to(kind)


def code_of(recipe: Recipe) -> Code:
    """What names a recipe's class, and the user's files that it consists of: none for one that ships.

    To be called where the class was imported: in a worker that it was sent to its module is not there.
    """
    return Code(reference_of(type(recipe)), recipe.sources())


def recipe_to_json(recipe: Recipe, code: Code | None = None) -> dict[str, Any]:
    """All fields, with nested ones as nested objects; under `recipe` what names its class.

    With `code` also the SHA-256 of each of its source files.
    """
    if code is None:
        return {"recipe": reference_of(type(recipe)), **to_json(recipe)}
    source = {SOURCE_KEY: digests(code.sources)} if code.sources else {}
    return {"recipe": code.reference, **source, **to_json(recipe)}


def recipe_from_json(stored: Mapping[str, Any], kind: type[Recipe] | None = None) -> Recipe:
    """The recipe that `recipe_to_json` was given; fields that it lacks take their defaults.

    `kind` is its class, where that is at hand: else it is found by what names it.
    """
    settings = {name: value for name, value in stored.items() if name not in ("recipe", SOURCE_KEY)}
    try:
        return from_json(kind or find_recipe(stored["recipe"]), settings)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        # It checks values, and takes their types for granted.
        raise UserError(f"the settings of recipe {stored['recipe']} are damaged: {error}") from error
