"""Any CSV: a model of its numbers and categories, which classifies or predicts a number."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import tyro
from torch import Tensor, nn

from blitz.data.csv.raw_rows import described_cells
from blitz.data.csv.tabular import CsvData, CsvFit, CsvRows, TrainingTable, csv_inputs, csv_rows, fit_csv
from blitz.data.csv.text_features import BUCKETS
from blitz.data.plan import Plan, Split
from blitz.fields import held, may_change
from blitz.losses import LearnsTargets
from blitz.models.folds import Folds, fold_weights
from blitz.models.table_models import MEMBERS, Effort, Layers, scaled, usual_batch, usual_epochs, usual_optim
from blitz.models.texts import WIDTH, WithTexts
from blitz.optim import ModelOptim, Optim, completed
from blitz.outputs.metrics import Classification, Regression
from blitz.outputs.multi_label import MultiLabel, label_predictions
from blitz.outputs.predictions import class_predictions, number_predictions
from blitz.recipe import Batch

_MOST_EVALUATIONS = 25
"""The default number in a run."""


@dataclass(frozen=True)
class TableCsv(LearnsTargets):
    """A model of the numbers and categories of a CSV; it classifies or predicts a number, depending on the target."""

    # None until it is fitted, which chooses a number.
    epochs: int | None = may_change(None)  # type: ignore[assignment]
    """Passes over the training rows; by default the fewer the more rows there are, by --effort."""
    global_batch_size: int | None = None  # type: ignore[assignment]
    """Rows a step, over all workers; by default the more the more rows there are."""
    effort: Effort = "default"
    """How much to compute: fast takes half the epochs, best twice as many; tabm has 4, 8 or 32 members."""
    optim: ModelOptim = ModelOptim()
    data: CsvData = CsvData()
    model: Layers = Layers()
    fitted_on: Annotated[CsvFit | None, tyro.conf.Suppress] = None
    opened: Annotated[TrainingTable | None, tyro.conf.Suppress] = held()

    def fitted(self) -> Self:
        fit, table = fit_csv(self.data, self.seed)
        usual = Optim(**usual_optim(self.model.name, classifies=bool(fit.target.classes)))
        rows = min(fit.rows, self.max_train_rows or fit.rows)
        # As in the paper.
        smooths = self.model.name == "realmlp" and fit.target.classes and not self.label_smoothing
        fitted = replace(
            self,
            fitted_on=fit,
            opened=table,
            optim=completed(self.optim, usual),
            model=replace(self.model, members=self.model.members or MEMBERS[self.effort]),
            epochs=self.epochs or usual_epochs(self.model.name, rows, self.effort),
            global_batch_size=self.global_batch_size or usual_batch(self.model.name, rows),
            label_smoothing=0.1 if smooths else self.label_smoothing,
        )
        trained_on = fitted.dataset("train")
        return fitted.checked_losses(fit.target.classes, len(trained_on), trained_on.labels)

    def plan(self, train_rows: int, eval_rows: int) -> Plan:
        plan = super().plan(train_rows, eval_rows)
        if self.evaluate_every_steps or self.epochs is None:
            return plan
        # Epochs of a small table are short: to evaluate after each would take longer than to train.
        return replace(plan, evaluate_every_steps=plan.steps_per_epoch * -(-self.epochs // _MOST_EVALUATIONS))

    @property
    def cpu_threads(self) -> int | None:
        # Threads wait for each other in every operation: of so few rows that costs more than they save, and on a
        # machine that does other work it makes steps many times slower.
        return 1 if (self.global_batch_size or 1) <= 128 else None

    @property
    def fit(self) -> CsvFit:
        """What was fitted on the training rows."""
        assert self.fitted_on is not None
        return self.fitted_on

    @property
    def is_tested(self) -> bool:
        return self.data.has_test

    def dataset(self, split: Split) -> CsvRows:
        return self.sampled(csv_rows(self.data, self.fit, split, self.seed, self.opened), split)

    def inputs(self, csv: str) -> CsvRows:
        return csv_inputs(self.data, self.fit, csv)

    def build_model(self) -> nn.Module:
        folds = self.data.folds
        if folds is None:
            return self._table_model()
        models = [self._table_model() for _ in range(folds)]
        return Folds(models, classifies=bool(self.fit.target.classes))

    def _table_model(self) -> nn.Module:
        fit = self.fit
        table = self.model.build(
            flags=fit.number_columns - len(fit.numbers) + WIDTH * len(fit.texts),
            quantiles=[one.quantiles for one in fit.numbers],
            codes=fit.codes,
            outputs=fit.outputs,
            classifies=bool(fit.target.classes),
        )
        return WithTexts(table, pieces=BUCKETS + 1) if fit.texts else table

    def preprocess(self, batch: Batch) -> Batch:
        numbers = self.fit.numbers
        found = scaled(
            batch["numbers"],
            quantiles=[one.quantiles for one in numbers],
            has_missing=[one.has_missing for one in numbers],
        )
        return {**batch, "numbers": found}

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        fold = {} if self.data.folds is None else {"fold": batch.get("fold")}
        outputs: Tensor = model(*self._features(batch), **fold)
        return outputs

    def _features(self, batch: Batch) -> list[Tensor]:
        return [batch[name] for name in ("numbers", "categories", *(["texts"] if self.fit.texts else []))]

    def outputs_by_fold(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """See `CrossValidated`."""
        return model.each(*self._features(batch)).transpose(0, 1) if isinstance(model, Folds) else None

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        # In training an ensemble gives (batch, members, outputs), and the loss is the mean of its members'.
        members = outputs if outputs.dim() == 3 else outputs[:, None]
        targets = batch["targets"][:, None]
        targets = targets.expand(-1, members.shape[1], *targets.shape[2:])
        if self.fit.labels is not None:
            losses = self.loss_of_labels(members, targets).mean(2)
        elif self.fit.target.classes:
            losses = self.loss_of_classes(members.flatten(0, 1), targets.flatten()).view_as(targets)
        else:
            losses = self.loss_of_numbers(members.squeeze(2), targets)
        if self.data.folds is not None and outputs.dim() == 3:
            losses = losses * fold_weights(batch["fold"], folds=self.data.folds, outputs=losses.shape[1])
        return losses.mean(1)

    def predictions(self, outputs: Tensor, batch: Batch) -> dict[str, list[str] | list[float]]:
        target, labels = self.fit.target, self.fit.labels
        if labels is not None:
            return label_predictions(outputs, labels.names, labels.separator)
        if target.classes:
            return class_predictions(outputs, target.classes)
        return number_predictions(target.undone(outputs.double()), {target.name: (0.0, 1.0)})

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        target = self.fit.target
        # What is deployed is for new rows, which are in no fold.
        batch = {name: column for name, column in batch.items() if name != "fold"}
        if target.classes or self.labels:
            return super().deployed(model, batch)
        outputs = self.forward(model, self.preprocess(batch))
        return {"prediction": target.undone(outputs.squeeze(1))}

    def signature(self) -> dict[str, Any]:
        return {**super().signature(), **described_cells(self.fit)}

    def metrics(self) -> Classification | MultiLabel | Regression:
        target = self.fit.target
        if self.fit.labels is not None:
            return MultiLabel(self.fit.labels.names)
        if target.classes:
            return Classification(target.classes)
        if target.log_unit:
            return Regression(undo=target.undone, best=self.deciding_number)
        return Regression((target.std,), means=(target.mean,), best=self.deciding_number)
