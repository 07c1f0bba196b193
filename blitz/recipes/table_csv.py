"""Any CSV: a multilayer perceptron over its numbers and categories, which classifies or predicts a number."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import tyro
from torch import Tensor, nn

from blitz.data.csv.tabular import CsvData, CsvFit, CsvRows, TrainingTable, csv_inputs, csv_rows, fit_csv
from blitz.data.plan import Split
from blitz.errors import require
from blitz.fields import held
from blitz.losses import LearnsTargets
from blitz.models.mlp import Activation
from blitz.models.tabular_mlp import TabularMLP, standardised
from blitz.optim import Optim
from blitz.outputs.metrics import Classification, Regression
from blitz.outputs.predictions import class_predictions, number_predictions
from blitz.recipe import Batch


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
class TableCsv(LearnsTargets):
    """An MLP on the numbers and categories of a CSV; it classifies or predicts a number, depending on the target."""

    epochs: int = 30
    optim: Optim = Optim(name="adamw", lr=1e-2, weight_decay=0.01, schedule="cosine")
    data: CsvData = CsvData()
    model: Layers = Layers()
    fitted_on: Annotated[CsvFit | None, tyro.conf.Suppress] = None
    opened: Annotated[TrainingTable | None, tyro.conf.Suppress] = held()

    def fitted(self) -> Self:
        fit, table = fit_csv(self.data, self.seed)
        fitted = replace(self, fitted_on=fit, opened=table)
        rows = fitted.dataset("train")
        return fitted.checked_losses(fit.target.classes, len(rows), rows.labels)

    @property
    def fit(self) -> CsvFit:
        """What was fitted on the training rows."""
        assert self.fitted_on is not None
        return self.fitted_on

    def dataset(self, split: Split) -> CsvRows:
        return csv_rows(self.data, self.fit, split, self.seed, self.opened)

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
            return self.loss_of_classes(outputs, batch["targets"])
        return self.loss_of_numbers(outputs.squeeze(1), batch["targets"])

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
            "categories": {one.name: one.codes for one in fit.categories},
            "unknown_category": 0,
        }

    def metrics(self) -> Classification | Regression:
        target = self.fit.target
        return (
            Classification(target.classes)
            if target.classes
            else Regression((target.std,), means=(target.mean,), best=self.deciding_number)
        )
