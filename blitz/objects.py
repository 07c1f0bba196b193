"""A recipe made of the objects that a program holds: a model, data sets, a loss."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset, MapStyleDataset
from blitz.data.items import INPUTS, TARGETS, Collate, ItemDataset, nested
from blitz.data.plan import Split
from blitz.errors import UserError, require
from blitz.fields import HELD
from blitz.outputs.metrics import Classification, Loss, Means, Metrics, Regression
from blitz.outputs.predictions import class_predictions
from blitz.outputs.row_loss import LossFunction, per_row, row_losses
from blitz.project import find_object, reference_to, sources_of
from blitz.recipe import Batch, Recipe

MetricsChoice = Literal["classification", "regression"] | Callable[[Any, Any], Mapping[str, Tensor]] | Metrics
"""What `metrics=` takes: a kind; a function of `(outputs, targets)` that gives named numbers for each row, of which the
means are reported; or an object with the methods of `blitz.outputs.metrics.Metrics`."""

_CLASS_LOSSES = ("CrossEntropyLoss", "NLLLoss", "cross_entropy", "nll_loss", "MultiMarginLoss")
_NUMBER_LOSSES = (
    "MSELoss",
    "L1Loss",
    "SmoothL1Loss",
    "HuberLoss",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
)


@dataclass(frozen=True, eq=False)
class Objects:
    """What a program holds and no file does."""

    model: Callable[[], nn.Module] | nn.Module | None = None
    train: Any = None
    val: Any = None
    loss: LossFunction | None = None
    metrics: MetricsChoice | None = None
    forward: Callable[[nn.Module, Batch], Any] | None = None
    collate_fn: Collate | None = None
    target: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the data sets: they travel to other processes by themselves, once."""
        return {**self.__dict__, "train": None, "val": None}


@dataclass(frozen=True)
class ObjectRecipe(Recipe):
    """A recipe of the objects that were given to `blitz.train`."""

    model: str = ""
    """What names the model's class or function."""
    loss_name: str = ""
    outputs: int | None = None
    """Scores for each row, where these are of classes, or numbers."""
    objects: Objects = field(default=Objects(), compare=False, repr=False, metadata={HELD: True})

    @classmethod
    def of(cls, objects: Objects, **settings: Any) -> "ObjectRecipe":
        """The recipe of some objects, tried on two rows.

        Raises:
            UserError: if they do not go together.
        """
        require(objects.model is not None, "name a recipe, or give model=, train= and loss=")
        require(objects.train is not None, "train= is missing: a data set with __len__ and __getitem__")
        require(objects.loss is not None, "loss= is missing: a module or function of (outputs, targets)")
        recipe = cls(model=_named(objects.model), loss_name=_named(objects.loss), objects=objects, **settings)
        return dataclasses.replace(recipe, outputs=recipe._tried())

    def _tried(self) -> int | None:
        """One forward pass and loss on two rows: how many outputs a row has, where there is one tensor of them."""
        dataset = self.dataset("train")
        rows = dataset.__getitems__(torch.arange(min(2, len(dataset))).numpy())
        batch = {name: torch.from_numpy(column) for name, column in rows.items()}
        model = self.build_model().eval()
        with torch.no_grad():
            try:
                outputs = self.forward(model, self.preprocess(batch))
            except UserError:
                raise
            except Exception as error:
                shapes = ", ".join(f"{name} {column.dtype} {tuple(column.shape)}" for name, column in rows.items())
                raise UserError(
                    f"model={self.model} does not take the first rows of train ({shapes}): "
                    f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                ) from error
            try:
                self.loss(outputs, self.preprocess(batch))
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"loss={self.loss_name} does not take the model's outputs and the targets of the first rows: "
                    f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                ) from error
        return outputs.shape[1] if isinstance(outputs, Tensor) and outputs.dim() > 1 else 1

    @property
    def name(self) -> str:
        """The model's name in lower case, by which the run is named."""
        return self.model.rpartition(":")[2].rpartition(".")[2].lower() or "model"

    @property
    def loader_workers(self) -> Literal["auto"] | int:
        """As many processes as a slow `__getitem__` is worth."""
        return "auto"

    def sources(self) -> dict[str, str]:
        """The text of the model, of the loss, and of what else was given that is no data."""
        held = self.objects
        given = (held.model, held.loss, held.metrics, held.forward, held.collate_fn)
        return sources_of(*(_owner(one) for one in given if one is not None and not isinstance(one, str)))

    def dataset(self, split: Split) -> MapStyleDataset:
        items = {"train": self.objects.train, "val": self.objects.val}.get(split)
        if items is None and split == "val":
            return _Nothing()
        require(items is not None, f"this run holds no rows of '{split}': it was made from objects; pass a data set")
        return self.rows_of(items, what=split)

    def rows_of(self, items: Any, *, what: str) -> MapStyleDataset:
        """A data set of the user's as rows of this recipe."""
        if isinstance(items, ArrayDataset):
            rows: MapStyleDataset = items
            return rows
        collate, target = self.objects.collate_fn, self.objects.target
        return ItemDataset(items, what=what, seed=self.seed, collate_fn=collate, target=target)

    def build_model(self) -> nn.Module:
        model = self.objects.model
        if model is None:
            model = find_object(self.model, hint="pass it as model=")
        # A module is copied: training it in place would change what the next call begins with.
        return copy.deepcopy(model) if isinstance(model, nn.Module) else model()

    def preprocess(self, batch: Batch) -> Batch:
        """Images of bytes as numbers in [0, 1], as torchvision's `ToTensor` gives them."""
        return {
            name: column.float() / 255 if column.dtype == torch.uint8 and column.dim() == 4 else column
            for name, column in batch.items()
        }

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        if self.objects.forward is not None:
            return self.objects.forward(model, batch)
        inputs = {name: nested(batch, name) for name in dict.fromkeys(key.partition("/")[0] for key in batch)}
        inputs.pop(TARGETS, None)
        if [*inputs] == [INPUTS]:
            value = inputs[INPUTS]
            if isinstance(value, tuple):
                return model(*value)
            return model(**value) if isinstance(value, dict) and _takes(model, value) else model(value)
        if _takes(model, inputs):
            return model(**inputs)
        if len(inputs) == 1:
            return model(*inputs.values())
        raise UserError(
            f"model={self.model}: forward takes {', '.join(_arguments(model))}, and a row has {', '.join(inputs)}; "
            "name them alike, or give forward=lambda model, batch: …"
        )

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        loss = self.objects.loss
        if loss is None:
            loss = find_object(self.loss_name, hint="pass it as loss=")
        rows = len(next(iter(batch.values())))
        return row_losses(per_row(loss), outputs, nested(batch, TARGETS), rows)

    def metrics(self) -> Metrics:
        chosen = self.objects.metrics
        last = self.loss_name.rpartition(":")[2].rpartition(".")[2]
        if chosen is None and last in _CLASS_LOSSES:
            chosen = "classification"
        elif chosen is None and last in _NUMBER_LOSSES:
            chosen = "regression"
        if chosen == "classification":
            names = getattr(self.objects.train, "classes", None) or range(self.outputs or 1)
            return Classification(classes=tuple(map(str, names)))
        if chosen == "regression":
            return Regression(units=(1.0,) * (self.outputs or 1))
        if callable(chosen):
            return Means(chosen, targets=lambda batch: nested(batch, TARGETS))
        return chosen if chosen is not None else Loss()

    def predictions(self, outputs: Any, batch: Batch) -> dict[str, list[str] | list[float]]:
        metrics = self.metrics()
        if isinstance(metrics, Classification):
            return class_predictions(outputs, metrics.classes)
        return super().predictions(outputs, batch)


def with_objects(recipe: Recipe, objects: Mapping[str, Any]) -> ObjectRecipe:
    """The recipe of a run that was made from objects, with some of them at hand again.

    Raises:
        UserError: if it is a run of something else.
    """
    require(
        isinstance(recipe, ObjectRecipe),
        f"{', '.join(f'{name}=' for name in objects)}: the run is one of recipe {recipe.name}, which needs no objects",
    )
    assert isinstance(recipe, ObjectRecipe)
    return dataclasses.replace(recipe, objects=dataclasses.replace(recipe.objects, **objects))


class _Nothing:
    """No rows."""

    def __len__(self) -> int:
        return 0

    def __getitems__(self, rows: Any) -> dict[str, Any]:
        """Never asked for."""
        return {}


def _named(value: Any) -> str:
    """What names a class or a function, or the class of an object."""
    return reference_to(_owner(value))


def _owner(value: Any) -> Any:
    """The class or function itself, or the class of an object."""
    value = value.func if isinstance(value, partial) else value
    return value if isinstance(value, type) or inspect.isfunction(value) else type(value)


def _arguments(model: nn.Module) -> tuple[str, ...]:
    return tuple(inspect.signature(model.forward).parameters)


def _takes(model: nn.Module, inputs: Mapping[str, Any]) -> bool:
    parameters = inspect.signature(model.forward).parameters
    return inputs.keys() <= parameters.keys() or any(one.kind == one.VAR_KEYWORD for one in parameters.values())
