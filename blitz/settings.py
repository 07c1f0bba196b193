"""The settings of a recipe, flat and by name, such as `optim.lr`: stored as JSON, compared, changed, given as flags."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

import typeguard
import tyro

from blitz.errors import UserError, require
from blitz.fields import HELD
from blitz.recipe import Recipe

_SHOWN_CHARACTERS = 40

SomeRecipe = TypeVar("SomeRecipe", bound=Recipe)


def to_json(recipe: Recipe) -> dict[str, Any]:
    """All fields, with groups of them as nested objects."""
    stored: dict[str, Any] = _plain(recipe)
    return stored


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        specs = [spec for spec in dataclasses.fields(value) if HELD not in spec.metadata]
        return {spec.name: _plain(getattr(value, spec.name)) for spec in specs}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value


def from_json(kind: type[SomeRecipe], stored: Mapping[str, Any]) -> SomeRecipe:
    """The recipe of class `kind` that `to_json` was given; fields that are missing take their defaults.

    Raises:
        UserError: if there is a field that the class does not have, or one that has no default is missing.
    """
    recipe: SomeRecipe = _build(kind, stored)
    return recipe


def _build(cls: Any, fields: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    unknown = fields.keys() - hints.keys()
    if unknown:
        raise UserError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}; another version stored it")
    defaults = (dataclasses.MISSING, dataclasses.MISSING)
    needed = {spec.name for spec in dataclasses.fields(cls) if (spec.default, spec.default_factory) == defaults}
    if lacking := needed - fields.keys():
        raise UserError(f"{cls.__name__} lacks {', '.join(sorted(lacking))}; another version stored it: train again")
    for name, value in fields.items():
        if not _is_of(hints[name], value):
            raise UserError(f"{cls.__name__}.{name} is {_brief(value)}, which is of another type")
    return cls(**{name: _value(hints[name], value) for name, value in fields.items()})


def _is_of(hint: Any, value: Any) -> bool:
    """Whether a value of JSON may be of a type; other than plain types are left to the constructor."""
    if hint is bool or hint is types.NoneType or hint is str:
        return isinstance(value, hint)
    if hint is int or hint is float:
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(_is_of(option, value) for option in typing.get_args(hint))
    return True


def _value(hint: Any, value: Any) -> Any:
    """A JSON value in the type of its field: JSON has neither dataclasses nor tuples."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return _build(option, value)
        if typing.get_origin(option) is tuple and isinstance(value, list):
            kinds = typing.get_args(option)
            kinds = kinds[:1] * len(value) if kinds[1:] == (...,) else kinds
            return tuple(_value(kind, one) for kind, one in zip(kinds, value, strict=True))
    return value


def differences(stored: Recipe, recipe: Recipe) -> list[str]:
    """Settings that differ, as `optim.lr (was 0.1, is 0.2)`, but for those that may change between two starts."""
    before, now = settings_of(stored), settings_of(recipe)
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
        if HELD in spec.metadata or spec.metadata.get("may_change") or general.metadata.get("may_change"):
            continue
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{spec.name}.")
        else:
            yield f"{prefix}{spec.name}", value


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Every setting that decides what is learned, flat: names such as `optim.lr`, in the order of the fields."""
    return dict(_leaves(recipe))


def setting_types(kind: Any, prefix: str = "") -> dict[str, Any]:
    """The type of every flag of a recipe class by name, such as `optim.lr`, without groups such as `optim`."""
    types: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if typing.get_origin(hint) is Annotated:
            if tyro.conf.Suppress in hint.__metadata__:
                continue
            hint = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(hint):
            types |= setting_types(hint, f"{prefix}{name}.")
        else:
            types[f"{prefix}{name}"] = hint
    return types


def setting_value(recipe: Recipe, name: str) -> Any:
    """The value of a setting, by a name such as `optim.lr`."""
    value: Any = recipe
    for part in name.split("."):
        value = getattr(value, part)
    return value


def with_settings(recipe: SomeRecipe, settings: Mapping[str, Any]) -> SomeRecipe:
    """`recipe` with other values of some settings, by names such as `optim.lr`.

    Raises:
        UserError: if the values are inconsistent.
    """
    changed: SomeRecipe = _with_settings(recipe, settings)
    return changed


def require_settings(kind: type[Recipe], settings: Mapping[str, Any]) -> None:
    """Refuse settings that a recipe class does not have, or values of other types; groups such as `optim` may be among
    them.

    Raises:
        UserError: if there is one.
    """
    groups = typing.get_type_hints(kind)
    known = {**{spec.name: groups[spec.name] for spec in dataclasses.fields(kind)}, **setting_types(kind)}
    for name, value in settings.items():
        # `lr` may mean `optim.lr`, and `batch_size` one of two.
        of_same_name = [one for one in known if one.endswith((f".{name}", f"_{name}"))]
        near = get_close_matches(name, known, n=1, cutoff=0.9) or of_same_name or get_close_matches(name, known, n=1)
        hint = f"; perhaps {' or '.join(near)}" if near else ""
        require(name in known, f"{kind.__name__} has no setting '{name}'{hint}")
        # Such as an `Optim` where a recipe has a `ModelOptim`, which may have further values.
        is_general = isinstance(known[name], type) and type(value) in known[name].__mro__[1:-1]
        require_type(name, value, type(value) if is_general else known[name])


def require_type(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not of a type, which may be a Literal or a union.

    Raises:
        UserError: if it is not.
    """
    try:
        typeguard.check_type(tuple(value) if isinstance(value, list) else value, hint)
    except typeguard.TypeCheckError:
        raise UserError(f"{name} is {_brief(repr(value))}; it must be {_type_in_words(hint)}") from None


def _type_in_words(hint: Any) -> str:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return f"a blitz.{hint.__name__}" if hint.__module__.startswith("blitz.") else f"a {hint.__name__}"
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(map(_type_in_words, typing.get_args(hint)))
    if hint is types.NoneType:
        return "None"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _with_settings(instance: Any, settings: Mapping[str, Any]) -> Any:
    # All values of a group at once, because checks of the group might refuse an intermediate state.
    groups: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head, {})[rest] = value
    hints = _hints(type(instance))
    changed = {
        head: _value(hints.get(head), inner[""]) if "" in inner else _with_settings(getattr(instance, head), inner)
        for head, inner in groups.items()
    }
    return dataclasses.replace(instance, **changed)


def _hints(kind: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except NameError:
        # A user's class that was sent to a Ray worker by value has no module there in which the names of annotations
        # could be looked up. The values come from the driver, which has checked their types.
        return {}


def flags_of(recipe: Recipe) -> list[str]:
    """The words after the recipe's name on the command line of blitz train that give these settings."""
    default, words = type(recipe)(), []
    for name in setting_types(type(recipe)):
        value = setting_value(recipe, name)
        if value != setting_value(default, name):
            words += _flag(name.replace("_", "-"), value)
    return words


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        group, dot, last = name.rpartition(".")
        return [f"--{name}" if value else f"--{group}{dot}no-{last}"]
    return [f"--{name}", *shown_words(value)]


def shown_words(value: Any) -> list[str]:
    """A value as words of a flag."""
    if isinstance(value, Mapping):
        return [word for pair in value.items() for one in pair for word in shown_words(one)]
    if isinstance(value, tuple | list):
        return [word for one in value for word in shown_words(one)]
    return [str(value)]
