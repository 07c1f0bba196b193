"""Recipes that compute in float64, for tests that compare the losses of two ways of computing the same.

In fp32 two kernels that sum in another order differ by some 1e-7 from the first step on, and training amplifies that
by a factor that depends on the model, the steps and the processor: no tolerance follows from arithmetic. In float64 the
same factor starts from 1e-16. `TOLERANCE` leaves room for a factor of 1e9, and a step that is computed wrongly differs
by far more.
"""

from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from torch import nn

from blitz.recipe import Batch, Recipe

R = TypeVar("R", bound=Recipe)

TOLERANCE = 1e-7
"""Relative, of a loss or a metric in float64."""


class _InFloat64:
    """The methods that `in_float64` puts before a recipe's own."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Its class has no name to be found by.
        plain, recipe = type(self).__mro__[2], cast(Recipe, self)
        return _made, (plain, {each.name: getattr(recipe, each.name) for each in fields(recipe) if each.init})

    def build_model(self) -> nn.Module:
        model: nn.Module = super().build_model()  # type: ignore[misc]
        return model.double()

    def preprocess(self, batch: Batch) -> Batch:
        found: Batch = super().preprocess(batch)  # type: ignore[misc]
        return {name: column.double() if column.is_floating_point() else column for name, column in found.items()}


@cache
def _class(plain: type[Recipe]) -> type[Recipe]:
    return type(plain.__name__, (_InFloat64, plain), {"__module__": plain.__module__, "__doc__": plain.__doc__})


def _made(plain: type[Recipe], settings: dict[str, Any]) -> Recipe:
    return _class(plain)(**settings)


def in_float64(recipe: R) -> R:
    """The recipe with its model and all floating-point columns in float64."""
    settings = {each.name: getattr(recipe, each.name) for each in fields(recipe) if each.init}
    return cast(R, _made(type(recipe), settings))
