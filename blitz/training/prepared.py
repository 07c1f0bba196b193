"""From a recipe to a job: what every way of starting a run does first."""

from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from blitz.data.plan import Datasets, Plan
from blitz.project import Code
from blitz.recipe import Recipe
from blitz.recipes import code_of, recipe_to_json
from blitz.run_files.code import write_sources
from blitz.run_files.directory import RunDirectory
from blitz.training.initial_weights import InitialWeights, resolve_initial_weights

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def open_datasets(recipe: Recipe) -> Datasets:
    """The rows to train on and to evaluate on."""
    return {"train": recipe.dataset("train"), "val": recipe.dataset("val")}


@dataclass(frozen=True)
class Prepared(Generic[AnyRecipe]):
    """A fitted recipe, its rows, their order, and the weights that it is initialised from."""

    recipe: AnyRecipe
    datasets: Datasets
    plan: Plan
    initial: InitialWeights | None
    code: Code

    def begin(self, run: RunDirectory) -> None:
        """Write the code, recipe.json and plan.json, and into a run without a checkpoint its initial weights."""
        write_sources(run, self.code.sources)
        for name, content in self._files().items():
            run.write_json(name, content)
        if self.initial is not None and not run.checkpoint_steps():
            self.initial.write(run)

    def complete(self, run: RunDirectory) -> None:
        """Write those of these files that are missing, such as one that was deleted because it was damaged."""
        for name, content in self._files().items():
            if not run.exists(name):
                run.write_json(name, content)

    def _files(self) -> dict[str, dict[str, Any]]:
        return {"recipe.json": recipe_to_json(self.recipe, self.code), "plan.json": asdict(self.plan)}


def prepare(recipe: AnyRecipe) -> Prepared[AnyRecipe]:
    """Fit the recipe, open its rows, and look up its initial weights.

    Raises:
        UserError: if any of it fails.
    """
    return prepared(recipe.fitted())


def prepared(fitted: AnyRecipe, datasets: Datasets | None = None, *, code: Code | None = None) -> Prepared[AnyRecipe]:
    """Like `prepare`, for a recipe that is fitted, and whose rows may be open and whose code may be known already."""
    datasets = datasets or open_datasets(fitted)
    plan = fitted.plan(len(datasets["train"]), len(datasets["val"]))
    recipe, initial = resolve_initial_weights(fitted)
    return Prepared(recipe, datasets, plan, initial, code or code_of(recipe))
