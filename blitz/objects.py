"""A recipe made of plain objects: a model, data sets and a loss."""

import copy
import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from blitz.data.arrays import ArrayDataset, Columns, MapStyleDataset
from blitz.data.items import INPUTS, TARGETS, Collate, ItemDataset, generators_restored, nested
from blitz.data.plan import Split
from blitz.errors import UserError, first_line, require
from blitz.fields import held
from blitz.object_identity import code_of, hash_of, name_of_object, object_of, short_name
from blitz.outputs.metrics import Classification, Loss, Means, Metrics, Regression
from blitz.outputs.row_loss import LossFunction, per_row, require_rows_apart, row_losses
from blitz.project import sources_of
from blitz.recipe import Batch, Recipe

MetricsChoice = Literal["classification", "regression"] | Callable[[Any, Any], Mapping[str, Tensor]] | Metrics
"""What `metrics=` takes: a kind; a function of `(outputs, targets)` that returns named tensors with a number for each
row, whose means are reported; or an object with the methods of `blitz.outputs.metrics.Metrics`."""

_KINDS = ("classification", "regression")
_TRIED = 8
"""Rows of each data set that are tried before training starts."""
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
    """The objects that were passed to `blitz.train`, which no file stores."""

    model: Callable[[], nn.Module] | nn.Module | None = None
    train: Any = None
    val: Any = None
    loss: LossFunction | None = None
    metrics: MetricsChoice | None = None
    forward: Callable[[nn.Module, Batch], Any] | None = None
    collate_fn: Collate | None = None
    target: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The state without the data sets, which are sent to other processes once, separately."""
        own = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)}
        return {**own, "train": None, "val": None}

    @cached_property
    def row_loss(self) -> LossFunction:
        """The loss without reduction; cached, because training moves a module to the device."""
        assert self.loss is not None
        return per_row(self.loss)


@dataclass(frozen=True)
class ObjectRecipe(Recipe):
    """A recipe of the objects that were passed to `blitz.train`."""

    model: str = ""
    """A reference to the model's class or function."""
    loss_name: str = ""
    kind: Literal["classification", "regression"] | None = None
    """Which metrics are computed; None if they are a function of the user's."""
    outputs: int | None = None
    """The number of outputs for each row: scores of classes, or predicted numbers."""
    classes: tuple[str, ...] = ()
    """The names of the classes."""
    code: str = ""
    """A hash of the code of the model, the loss and the functions; a run does not resume with other code."""
    rows: str = ""
    """A hash of the number of training rows, their types and some of their targets."""
    objects: Objects = held(Objects())

    @classmethod
    def of(cls, objects: Objects, **settings: Any) -> "ObjectRecipe":
        """A recipe of these objects, after a forward pass over a few rows of each data set.

        Raises:
            UserError: if the objects do not fit each other.
        """
        require(objects.model is not None, "name a recipe, or give model=, train= and loss=")
        require(objects.train is not None, "train= is missing: a data set with __len__ and __getitem__")
        require(objects.loss is not None, "loss= is missing: a module or function of (outputs, targets)")
        require(callable(objects.model), f"model={objects.model!r} is neither a module nor a callable that returns one")
        require(callable(objects.loss), f"loss={objects.loss!r} is neither a module nor a function")
        require(
            callable(objects.metrics) or objects.metrics in (None, *_KINDS) or hasattr(objects.metrics, "sums"),
            f"metrics={objects.metrics!r}: give {' or '.join(map(repr, _KINDS))}, or a function of (outputs, targets)",
        )
        own = (objects.model, objects.loss, objects.metrics, objects.forward, objects.collate_fn, objects.target)
        recipe = cls(
            model=name_of_object(objects.model),
            loss_name=name_of_object(objects.loss),
            code=hash_of(*map(code_of, own)),
            objects=objects,
            **settings,
        )
        return recipe._tried()

    def _tried(self) -> "ObjectRecipe":
        """This recipe with the fields that a forward pass over a few rows of each data set determines."""
        made = f"model={short_name(self.model)} cannot be made"
        with generators_restored(), _explained(made):
            model = self.build_model()
        require(
            isinstance(model, nn.Module),
            f"model={short_name(self.model)} gives {type(model).__name__}; it must be or make a torch.nn.Module",
        )
        model.eval()
        dataset = self.dataset("train")
        columns = _some_rows(dataset)
        outputs, targets = self._try_forward(model, columns, "train")
        recipe = dataclasses.replace(
            self,
            outputs=outputs.shape[1] if isinstance(outputs, Tensor) and outputs.dim() > 1 else 1,
            kind=self._kind(outputs, targets),
            rows=_hash_of_rows(dataset, columns),
        )
        if recipe.kind == "classification":
            recipe = dataclasses.replace(recipe, classes=_class_names(self.objects.train, recipe.outputs or 1))
        splits: tuple[Split, ...] = ("train", "val")
        for split in splits[: 1 + (self.objects.val is not None)]:
            if split == "val":
                columns = _some_rows(self.dataset("val"))
                outputs, _ = recipe._try_forward(model, columns, "val")
            recipe._try_metrics(outputs, columns, split)
        return recipe

    def _try_forward(self, model: nn.Module, columns: Columns, split: Split) -> tuple[Any, Any]:
        """Outputs for some rows, and their targets."""
        batch = self.preprocess({name: torch.from_numpy(column) for name, column in columns.items()})
        shapes = ", ".join(f"{name} {column.dtype} {tuple(column.shape)}" for name, column in columns.items())
        with torch.no_grad(), warnings.catch_warnings():
            # Torch only warns when shapes differ; blitz refuses such a loss below.
            warnings.filterwarnings("ignore", "Using a target size")
            with _explained(f"model={short_name(self.model)} does not take rows of {split} ({shapes})"):
                outputs = self.forward(model, batch)
            given = f"outputs {_in_words(outputs)}, targets {_in_words(nested(batch, TARGETS))}"
            if not any(name.partition("/")[0] == TARGETS for name in batch):
                given = "its items have no targets; give (inputs, targets)"
            with _explained(
                f"loss={short_name(self.loss_name)} does not take the outputs and targets of rows of {split} ({given})"
            ):
                self.loss(outputs, batch)
                targets = nested(batch, TARGETS)
                require_rows_apart(self.objects.row_loss, outputs, targets, len(next(iter(batch.values()))))
        return outputs, targets

    def _try_metrics(self, outputs: Any, columns: Columns, split: Split) -> None:
        batch = self.preprocess({name: torch.from_numpy(column) for name, column in columns.items()})
        shown = short_name(name_of_object(self.objects.metrics)) if self.kind is None else self.kind
        with _explained(f"metrics={shown} does not take the outputs and targets of rows of {split}"):
            self.metrics().sums(outputs, batch)

    def _kind(self, outputs: Any, targets: Any) -> Literal["classification", "regression"] | None:
        """The metrics that were requested, or those that a common loss implies, given the shapes."""
        chosen = self.objects.metrics
        if chosen == "classification" or chosen == "regression":
            return chosen
        if chosen is not None or not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            return None
        last = short_name(self.loss_name)
        if last in _CLASS_LOSSES and outputs.dim() == 2 and targets.dim() == 1 and not targets.is_floating_point():
            return "classification"
        if last in _NUMBER_LOSSES and outputs.dim() <= 2 and outputs.shape == targets.shape:
            return "regression"
        return None

    @property
    def name(self) -> str:
        """The model's name in lower case, from which the run's default name is made."""
        name = re.sub(r"[^a-z0-9_]", "", short_name(self.model).lower())
        return "model" if name in ("", "lambda") else name

    @property
    def loader_workers(self) -> Literal["auto"] | int:
        """Chosen by how slow `__getitem__` is."""
        return "auto"

    def sources(self) -> dict[str, str]:
        """The source of the model, the loss and the functions that were passed."""
        held = self.objects
        given = (held.model, held.loss, held.metrics, held.forward, held.collate_fn)
        return sources_of(*(_owner(one) for one in given if one is not None and not isinstance(one, str)))

    def dataset(self, split: Split) -> MapStyleDataset:
        items = {"train": self.objects.train, "val": self.objects.val}.get(split)
        if items is None and split == "val" and self.objects.train is not None:
            return _Nothing()
        require(items is not None, f"a run does not store its data sets; pass it again: blitz.open(…, {split}=…)")
        return self.rows_of(items, what=split)

    def rows_of(self, items: Any, *, what: str) -> MapStyleDataset:
        """The user's data set, adapted to this recipe's columns."""
        if isinstance(items, ArrayDataset):
            rows: MapStyleDataset = items
            return rows
        collate, target = self.objects.collate_fn, self.objects.target
        return ItemDataset(items, what=what, seed=self.seed, collate_fn=collate, target=target)

    def build_model(self) -> nn.Module:
        model = self.objects.model
        if model is None:
            model = object_of(self.model, what="model")
        # Copied: training the caller's module in place would change the initial weights of the next call.
        return copy.deepcopy(model if isinstance(model, nn.Module) else model())

    def preprocess(self, batch: Batch) -> Batch:
        """Scale images of bytes to [0, 1], like torchvision's `ToTensor`."""
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
        takes = ", ".join(_arguments(model))
        raise UserError(
            f"model={short_name(self.model)}: forward takes {takes}, and a row has {', '.join(inputs)}; "
            "name them alike, or give forward=lambda model, batch: …"
        )

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        objects = self.objects
        if objects.loss is None:
            objects = dataclasses.replace(objects, loss=object_of(self.loss_name, what="loss"))
            object.__setattr__(self, "objects", objects)
        first = next(iter(batch.values()))
        loss = objects.row_loss
        if isinstance(loss, nn.Module):
            loss.to(first.device)
        return row_losses(loss, outputs, nested(batch, TARGETS), len(first))

    def metrics(self) -> Metrics:
        if self.kind == "classification":
            return Classification(classes=self.classes)
        if self.kind == "regression":
            return Regression(units=(1.0,) * (self.outputs or 1))
        chosen = self.objects.metrics
        if callable(chosen):
            return Means(chosen, targets=lambda batch: nested(batch, TARGETS))
        return chosen if chosen is not None and not isinstance(chosen, str) else Loss()

    def predictions(self, outputs: Any, batch: Batch) -> dict[str, list[str] | list[float]]:
        if isinstance(outputs, Tensor):
            return super().predictions(outputs, batch)
        columns: dict[str, list[str] | list[float]] = {}
        for name, output in outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs):
            for column, values in super().predictions(output, batch).items():
                columns[column.replace("prediction", f"prediction_{name}", 1)] = values
        return columns


def _in_words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else type(value).__name__


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise an error of the user's code as a UserError: one line that starts with `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


def _some_rows(dataset: MapStyleDataset) -> Columns:
    """Evenly spaced rows, the first and the last included: several classes, even if the data set is sorted by class."""
    return dataset.__getitems__(np.unique(np.linspace(0, len(dataset) - 1, _TRIED).astype(np.int64)))


def _hash_of_rows(dataset: MapStyleDataset, columns: Columns) -> str:
    # Only the types of inputs: another machine may decode an image to slightly other values.
    types = [f"{name} {column.dtype} {column.shape[1:]}" for name, column in sorted(columns.items())]
    targets = [column.tobytes() for name, column in sorted(columns.items()) if name.partition("/")[0] == TARGETS]
    return hash_of(str(len(dataset)), *types, *targets)


def _class_names(items: Any, count: int) -> tuple[str, ...]:
    """Names of classes where a data set knows them: torchvision's `classes`, or the features of Hugging Face's."""
    while isinstance(items, Subset):
        items = items.dataset
    names = getattr(items, "classes", None)
    if names is None and isinstance(features := getattr(items, "features", None), Mapping):
        names = next((one.names for one in features.values() if hasattr(one, "names")), None)
    found = tuple(map(str, names)) if names is not None else ()
    return found if len(found) == count and len(set(found)) == count else tuple(map(str, range(count)))


def with_objects(recipe: Recipe, objects: Mapping[str, Any]) -> ObjectRecipe:
    """The recipe of a run of plain objects, with those objects that are passed again.

    Raises:
        UserError: if the run was not made from plain objects.
    """
    require(
        isinstance(recipe, ObjectRecipe),
        f"{', '.join(f'{name}=' for name in objects)}: the run is one of recipe {recipe.name}, which takes no objects",
    )
    assert isinstance(recipe, ObjectRecipe)
    known = [spec.name for spec in dataclasses.fields(Objects)]
    for name in objects:
        near = get_close_matches(name, known, n=1)
        require(name in known, f"{name}=: a run takes {', '.join(known)}{f'; perhaps {near[0]}=' if near else ''}")
    return dataclasses.replace(recipe, objects=dataclasses.replace(recipe.objects, **objects))


class _Nothing:
    """An empty data set."""

    def __len__(self) -> int:
        return 0

    def __getitems__(self, rows: Any) -> dict[str, Any]:
        """Never called, since there are no rows."""
        return {}


def _owner(value: Any) -> Any:
    """The class or function itself, or the class of an object."""
    value = value.func if isinstance(value, partial) else value
    return value if isinstance(value, type) or inspect.isfunction(value) else type(value)


def _arguments(model: nn.Module) -> tuple[str, ...]:
    return tuple(inspect.signature(model.forward).parameters)


def _takes(model: nn.Module, inputs: Mapping[str, Any]) -> bool:
    parameters = inspect.signature(model.forward).parameters
    return inputs.keys() <= parameters.keys() or any(one.kind == one.VAR_KEYWORD for one in parameters.values())
