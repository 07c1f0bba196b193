import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blitz.data.csv.tabular import CsvData
from blitz.recipe import Batch, Recipe
from blitz.recipes.digits import Digits
from blitz.recipes.parabola import Parabola
from blitz.recipes.table_csv import TableCsv
from blitz.training.packed import why_not_packable
from tests.training.packed.packs import HERE
from tests.training.packed.test_parity import Images, Restless


def why_not(recipe: Recipe) -> str | None:
    recipe = recipe.fitted()
    return why_not_packable(recipe, recipe.dataset("train"), world=HERE)


@pytest.mark.parametrize("recipe", [Parabola(), Digits(), Images(), Restless(micro_batch_size=2)])
def test_what_can_be_packed_is(recipe: Recipe) -> None:
    assert why_not(recipe) is None
    assert why_not(replace(recipe, channels_last=True)) is None


def test_a_table_with_categories_and_dropout_can_be_packed(tmp_path: Path) -> None:
    rows = [f"{'xyz'[n % 3]},{n % 7 or ''},{'no' if n % 2 else 'yes'}" for n in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["letter,number,answer", *rows, ""]))
    data = CsvData(
        train_csv=str(tmp_path / "table.csv"), target="answer", val_fraction=0.2, cache=str(tmp_path / "cache")
    )
    assert why_not(TableCsv(data=data)) is None


@dataclass(frozen=True)
class Odd(Parabola):
    """A model as a test makes it."""

    make: Callable[[], nn.Module] = nn.Identity

    def build_model(self) -> nn.Module:
        return self.make()


class Unsteady(nn.Linear):
    """Looks at its numbers to decide what to do."""

    def forward(self, input: Tensor) -> Tensor:
        outputs = super().forward(input)
        return outputs if outputs.sum() > 0 else 2 * outputs


class Counted(nn.Linear):
    """Takes a number out of a tensor."""

    def forward(self, input: Tensor) -> Tensor:
        norm: float = self.weight.norm().item()
        return super().forward(input).mul(norm)


class WithASpare(nn.Linear):
    """Has a parameter that it does not use."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.spare = nn.Parameter(torch.zeros(2))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)),
            "its model changes 1.running_mean while it trains, as batch norm does",
        ),
        (lambda: Unsteady(1, 1), "a stack of its models cannot take a step: vmap: It looks like .* control flow"),
        (
            lambda: Counted(1, 1),
            r"a stack of its models cannot take a step: vmap: It looks like .*\.item\(\) on a Tensor",
        ),
        (WithASpare, "its loss does not depend on spare"),
    ],
)
def test_what_cannot_be_packed_is_said_in_a_line(make: Any, reason: str) -> None:
    found = why_not(Odd(make=make))
    assert found is not None
    assert "\n" not in found
    assert re.fullmatch(reason, found)


@dataclass(frozen=True)
class Hasty(Parabola):
    """Depends on the time, so that no two passes are equal."""

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        return model(batch["inputs"]) * (1 + time.perf_counter() % 1)


def test_a_stack_that_computes_something_else_is_refused() -> None:
    assert why_not(Hasty()) == "the gradients of a stack of its models are not those of the models"


def test_settings_that_a_pack_does_not_have_are_named() -> None:
    for change, flag in (
        ({"compile": True}, "--compile"),
        ({"precision": "bf16"}, "--precision bf16"),
        ({"on_nan": "skip"}, "--on-nan skip"),
        ({"find_unused_parameters": True}, "--find-unused-parameters"),
    ):
        found = why_not(replace(Parabola(), **change))
        assert found is not None
        assert flag in found
