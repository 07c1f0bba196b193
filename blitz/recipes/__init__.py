"""One file, one task: the file's name is the recipe's name on the command line. Here is how one is found and stored."""

import dataclasses
import importlib
import pkgutil
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from blitz.errors import UserError
from blitz.recipe import Recipe

_SHOWN_CHARACTERS = 40


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
    return {"recipe": recipe.name, **dataclasses.asdict(recipe)}


def recipe_from_json(stored: Mapping[str, Any]) -> Recipe:
    """The recipe that `recipe_to_json` was given; fields that it lacks take their defaults."""
    fields = {name: value for name, value in stored.items() if name != "recipe"}
    recipe: Recipe = _build(find_recipe(stored["recipe"]), fields)
    return recipe


def _build(cls: Any, fields: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    unknown = fields.keys() - hints.keys()
    if unknown:
        raise UserError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}; another version stored it")
    return cls(**{name: _value(hints[name], value) for name, value in fields.items()})


def _value(hint: Any, value: Any) -> Any:
    """`value` as JSON gave it, in the type that the field has: JSON knows neither dataclasses nor tuples."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return _build(option, value)
        if typing.get_origin(option) is tuple and isinstance(value, list):
            kinds = typing.get_args(option)
            kinds = kinds[:1] * len(value) if kinds[1:] == (...,) else kinds
            return tuple(_value(kind, one) for kind, one in zip(kinds, value, strict=True))
    return value


def differences(stored: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Fields that differ from what was stored, as `optim.lr (was 0.1, is 0.2)`, but for those that may change."""
    before, now = dict(_leaves(recipe_from_json(stored))), dict(_leaves(recipe))
    return [
        f"{name} (was {_brief(before.get(name))}, is {_brief(now.get(name))})"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    ]


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _leaves(instance: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for spec in dataclasses.fields(instance):
        value = getattr(instance, spec.name)
        # A recipe that gives a field of `Recipe` another default need not say again that it may change.
        general = Recipe.__dataclass_fields__.get(spec.name, spec) if isinstance(instance, Recipe) else spec
        if spec.metadata.get("may_change") or general.metadata.get("may_change"):
            continue
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{spec.name}.")
        else:
            yield f"{prefix}{spec.name}", value


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """All that decides what is learned, flat: names such as `optim.lr`, in the order of the fields."""
    return dict(_leaves(recipe))
