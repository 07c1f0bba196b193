"""Any CSV: a multilayer perceptron over its numbers and categories, which classifies or predicts a number."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Self

import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from blitz.data.csv.tabular import (
    CsvData,
    CsvFit,
    CsvRows,
    TrainingTable,
    csv_inputs,
    fit_csv,
    open_table,
    training_rows,
    val_rows,
)
from blitz.data.plan import Split
from blitz.errors import require
from blitz.fields import HELD
from blitz.models.mlp import Activation
from blitz.models.tabular_mlp import TabularMLP, standardised
from blitz.optim import Optim
from blitz.outputs.metrics import Classification, Regression
from blitz.outputs.predictions import class_predictions, number_predictions
from blitz.recipe import Batch, Recipe


@dataclass(frozen=True)
class Layers:
    """The hidden layers."""

    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers."""
    dropout: float = 0.1
    """Dropout probability after each hidden layer."""
    activation: Activation = "relu"
    """The activation after each hidden layer."""

    def __post_init__(self) -> None:
        require(all(width >= 1 for width in self.hidden), f"--model.hidden is {self.hidden}; each must be at least 1")
        require(0 <= self.dropout < 1, f"--model.dropout is {self.dropout}; it must be in [0, 1)")


@dataclass(frozen=True)
class TableCsv(Recipe):
    """An MLP on the numbers and categories of a CSV; it classifies or predicts a number, depending on the target."""

    epochs: int = 30
    optim: Optim = Optim(name="adamw", lr=1e-2, weight_decay=0.01, schedule="cosine")
    data: CsvData = CsvData()
    model: Layers = Layers()
    fitted_on: Annotated[CsvFit | None, tyro.conf.Suppress] = None
    opened: Annotated[TrainingTable | None, tyro.conf.Suppress] = field(
        default=None, compare=False, repr=False, metadata={HELD: True}
    )

    def fitted(self) -> Self:
        self.data.check()
        table = open_table(self.data, self.seed)
        return replace(self, fitted_on=fit_csv(table), opened=table)

    @property
    def fit(self) -> CsvFit:
        """What was fitted on the training rows."""
        assert self.fitted_on is not None
        return self.fitted_on

    @property
    def splits(self) -> tuple[Split, ...]:
        return ("train", "val", "test") if self.data.has_test else ("train", "val")

    @property
    def is_tested(self) -> bool:
        return self.data.has_test

    def dataset(self, split: Split) -> CsvRows:
        data, fit, table = self.data, self.fit, self.opened
        other: dict[Split, str | None] = {"train": None, "val": data.val_csv, "test": data.test_csv}
        if (csv := other[split]) is not None:
            return val_rows(data, fit, csv)
        if table is None or not table.is_of(data, self.seed):
            table = open_table(data, self.seed, content=fit.content)
        return training_rows(table, fit, split)

    def inputs(self, csv: str) -> CsvRows:
        return csv_inputs(self.data, self.fit, csv)

    def build_model(self) -> nn.Module:
        return TabularMLP(
            numbers=self.fit.number_columns,
            codes=self.fit.codes,
            hidden=self.model.hidden,
            dropout=self.model.dropout,
            outputs=len(self.fit.target.classes) or 1,
            activation=self.model.activation,
        )

    def preprocess(self, batch: Batch) -> Batch:
        numbers = self.fit.numbers
        scaled = standardised(
            batch["numbers"],
            means=[one.mean for one in numbers],
            stds=[one.std for one in numbers],
            has_missing=[one.has_missing for one in numbers],
        )
        return {**batch, "numbers": scaled}

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        outputs: Tensor = model(batch["numbers"], batch["categories"])
        return outputs

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        if self.fit.target.classes:
            return F.cross_entropy(outputs, batch["targets"], reduction="none")
        return (outputs.squeeze(1) - batch["targets"]).square()

    def predictions(self, outputs: Tensor, batch: Batch) -> dict[str, list[str] | list[float]]:
        target = self.fit.target
        if target.classes:
            return class_predictions(outputs, target.classes)
        return number_predictions(outputs, {target.name: (target.mean, target.std)})

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        target = self.fit.target
        if target.classes:
            return super().deployed(model, batch)
        outputs = self.forward(model, self.preprocess(batch))
        return {"prediction": outputs.squeeze(1) * target.std + target.mean}

    def signature(self) -> dict[str, Any]:
        fit = self.fit
        return {
            **super().signature(),
            "numbers": [one.name for one in fit.numbers],
            "missing_number": "nan",
            "categories": {
                one.name: {value: code for code, value in enumerate(one.values, start=1)} for one in fit.categories
            },
            "unknown_category": 0,
        }

    def metrics(self) -> Classification | Regression:
        target = self.fit.target
        return Classification(target.classes) if target.classes else Regression(units=(target.std,))
