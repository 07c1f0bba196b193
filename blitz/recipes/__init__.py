"""One file, one task: the file's name is the recipe's name on the command line. Here is how one is found and stored."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from blitz.errors import UserError
from blitz.recipe import Recipe
from blitz.settings import from_json, to_json


def recipe_names() -> list[str]:
    """Names of all recipes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_recipe(name: str) -> type[Recipe]:
    """The recipe class of `blitz/recipes/<name>.py`.

    Raises:
        UserError: if there is no such file, or it does not define exactly one recipe.
    """
    if name not in recipe_names():
        raise UserError(f"there is no recipe {name!r}; there are {', '.join(recipe_names())}")
    module = importlib.import_module(f"blitz.recipes.{name}")
    found = [
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, Recipe) and member.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(f"{module.__file__} defines {len(found)} recipes; it must define exactly one")
    return found[0]


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """All fields, with nested ones as nested objects; under `recipe` its name."""
    return {"recipe": recipe.name, **to_json(recipe)}


def recipe_from_json(stored: Mapping[str, Any]) -> Recipe:
    """The recipe that `recipe_to_json` was given; fields that it lacks take their defaults."""
    fields = {name: value for name, value in stored.items() if name != "recipe"}
    return from_json(find_recipe(stored["recipe"]), fields)
