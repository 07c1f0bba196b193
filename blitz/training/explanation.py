"""What a table's model has learned and where it is wrong, from rows that it was not trained on.

Everything is computed from at most 20,000 rows (2,000 of free text), and what needs a pass for each column from at most
1,000; which rows they are, and how cells are permuted, follows from the seed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blitz.data.csv.named_columns import CellIndex, cell_indices, cells_of
from blitz.data.csv.tabular import CsvRows
from blitz.data.order import shuffled_rows
from blitz.data.plan import Split
from blitz.errors import UserError
from blitz.outputs.best import deciding_metric
from blitz.outputs.metrics import Classification, Regression, Sums, wilson_interval
from blitz.outputs.multi_label import MultiLabel
from blitz.randomness import Use, key_for
from blitz.recipe import Batch, Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.batches import laid_out
from blitz.training.example_rows import mistake_score
from blitz.training.held_out_errors import MOST_ROWS, Intervals, fetched, held_out_errors, rows_at_random
from blitz.training.model import Forward, checkpoint_model, forward_and_loss

LEVEL = 0.9
"""The level of the prediction intervals."""
_ROWS, _PERMUTED_ROWS, _LEAST_PERMUTED = 20_000, 1000, 100
_REPEATS, _MOST_COLUMNS, _MOST_FORWARD = 5, 100, 25_000
_DRAWN, _DEPENDENCE_ROWS, _POINTS, _MOST_SERIES = 6, 200, 16, 5
_BINS, _LEAST_IN_BIN, _WORST, _RESIDUALS = 10, 10, 20, 500
_ROWS_A_FORWARD = 1024
_NORMAL = 1.959963984540054
_CPU = torch.device("cpu")

Explanation = dict[str, Any]


def explanation_file(split: str, step: int) -> str:
    """The file of an explanation in its run."""
    return f"explanations/{split}-{step}.json"


@torch.no_grad()
def explain(recipe: Recipe, run: RunDirectory, *, step: int, split: Split) -> Explanation | None:
    """Explain a checkpoint by the rows of a split, and write that into the run; None unless they are those of a table.

    It holds `importance` of the columns, most important first, `dependence` of predictions on the first six of them,
    the `worst` rows, for classes `calibration`, and for a number `residuals` and prediction `intervals`.
    """
    dataset = recipe.dataset(split)
    if not isinstance(dataset, CsvRows) or not len(dataset):
        return None
    explained = _Explained(recipe, checkpoint_model(recipe, run, step), dataset)
    found = {"split": split, "step": step, "best": explained.deciding, **explained.found()}
    if isinstance(recipe.metrics(), Regression) and (intervals := explained.intervals(run, step)):
        found["intervals"] = intervals
    run.write_json(explanation_file(split, step), found)
    return found


class _Explained:
    def __init__(self, recipe: Recipe, model: nn.Module, dataset: CsvRows) -> None:
        self._recipe, self._model, self._dataset = recipe, model, dataset
        self._forward = Forward(recipe, model)
        self._metrics, self._all = recipe.metrics(), recipe.evaluated_metrics()
        # A pass over free text takes about ten times as long.
        self._share = 10 if dataset.fit.texts else 1
        rows = rows_at_random(len(dataset), _ROWS // self._share, seed=recipe.seed)
        self._rows, self._columns = fetched(dataset, rows)
        self._outputs, self._losses, self._batch = self._passed(self._columns)
        self._sums = self._all.sums(self._outputs, self._batch)
        self.deciding = deciding_metric(recipe.best, self._metrics, self._sums).metric

    def _passed(self, columns: Batch) -> tuple[Tensor, Tensor, Batch]:
        """Outputs and losses of fetched rows, and their batch."""
        batch = laid_out(self._recipe, self._recipe.preprocess(columns))
        outputs, losses = [], []
        for start in range(0, len(next(iter(batch.values()))), _ROWS_A_FORWARD):
            part = {name: one[start : start + _ROWS_A_FORWARD] for name, one in batch.items()}
            found = forward_and_loss(self._recipe, self._forward, part, _CPU)
            outputs.append(found[0])
            losses.append(found[1])
        return torch.cat(outputs), torch.cat(losses).double(), batch

    def found(self) -> Explanation:
        indices = cell_indices(self._dataset.fit)
        importance = self._importance(dict([*indices.items()][:_MOST_COLUMNS]))
        drawn = [one["column"] for one in importance if indices[one["column"]][0][0] != "texts"][:_DRAWN]
        found = {
            "rows": len(self._rows),
            "importance": importance,
            "dependence": self._dependence({name: indices[name] for name in drawn}),
            "worst": self._worst(),
        }
        if isinstance(self._metrics, Classification):
            return {**found, "calibration": self._calibration(self._metrics)}
        return {**found, "residuals": self._residuals()} if isinstance(self._metrics, Regression) else found

    def _importance(self, indices: Mapping[str, tuple[CellIndex, ...]]) -> list[dict[str, Any]]:
        """How much the loss of a row rises if the cells of a column are permuted (Breiman 2001, "Random forests").

        The interval is that of the mean over the rows, each of which is the mean over the repeats.
        """
        most = _MOST_FORWARD // (self._share * _REPEATS * len(indices))
        count = max(_LEAST_PERMUTED, min(_PERMUTED_ROWS, most))
        columns = self._first(count)
        outputs, before, batch = self._passed(columns)
        metric = self._metric([self._all.sums(outputs, batch)], before)
        rows, found = len(before), []
        for name, where in indices.items():
            rises, sums, losses = torch.zeros_like(before), [], []
            for repeat in range(_REPEATS):
                keys = np.full(rows, key_for(Use.EXPLAINED, self._recipe.seed, repeat + 1), np.uint64)
                donors = torch.from_numpy(shuffled_rows(np.arange(rows), num_rows=rows, keys=keys))
                outputs, after, batch = self._passed(_with_cells(columns, where, donors))
                rises += (after - before) / _REPEATS
                sums.append(self._all.sums(outputs, batch))
                losses.append(after)
            mean, reach = rises.mean().item(), _NORMAL * rises.std(correction=min(1, rows - 1)).item() / rows**0.5
            change = self._metric(sums, torch.cat(losses)) - metric
            found.append({"column": name, "loss": mean, "interval": [mean - reach, mean + reach], "change": change})
        return sorted(found, key=lambda one: -one["loss"])

    def _metric(self, sums: Iterable[Sums], losses: Tensor) -> float:
        """The metric that decides, of several passes."""
        total: Sums = {}
        for one in sums:
            total = {name: total[name] + value if name in total else value for name, value in one.items()}
        values = {"loss": losses.mean().item(), **self._all.compute(total)}
        return values.get(self.deciding, values["loss"])

    def _dependence(self, indices: Mapping[str, tuple[CellIndex, ...]]) -> list[dict[str, Any]]:
        """The mean prediction if all rows have the same cell in a column (Friedman 2001, Ann. Stat. 29).

        Cells of a number or a date are quantiles of the rows; of a category they are its most frequent values.
        """
        fit, columns, found = self._dataset.fit, self._first(_DEPENDENCE_ROWS), []
        cells = cells_of(fit, self._columns)
        # A date whose parts do not give the day is shown by them, in words.
        dated = {one.name: "date" if "elapsed" in one.parts else "category" for one in fit.dates}
        for name, where in indices.items():
            kind = "category" if where[0][0] == "categories" else dated.get(name, "number")
            key = self._columns[where[0][0]][:, where[-1][1]]
            donors = _frequent(key) if where[0][0] == "categories" else _quantiles(key)
            points: list[dict[str, Any]] = []
            for donor in donors.tolist():
                same = torch.full((len(next(iter(columns.values()))),), donor)
                outputs, _, batch = self._passed(_with_cells(columns, where, same, self._columns))
                label = cells[name][donor]
                points += [
                    {"cell": "missing or rare" if label is None else label, "series": series, "value": value}
                    for series, value in self._series(outputs, batch).items()
                ]
            found.append({"column": name, "kind": kind, "points": points})
        return found

    def _series(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        """Mean predictions: the number, or the probabilities of the most frequent classes or labels.

        Of two classes that is the rarer one's.
        """
        if isinstance(self._metrics, Classification):
            means = outputs.double().softmax(1).mean(0)
            return {f"probability of {self._metrics.classes[number]}": means[number].item() for number in self._shown()}
        if isinstance(self._metrics, MultiLabel):
            means = outputs.double().sigmoid().mean(0)
            frequent = self._batch["targets"].sum(0).argsort(descending=True, stable=True)[:_MOST_SERIES].tolist()
            return {f"probability of {self._metrics.labels[number]}": means[number].item() for number in frequent}
        values: Any = self._recipe.predictions(outputs, batch)["prediction"]
        return {"prediction": float(np.mean(values))}

    def _shown(self) -> list[int]:
        assert isinstance(self._metrics, Classification)
        counts = torch.bincount(self._batch["targets"].long(), minlength=len(self._metrics.classes))
        order = counts.argsort(descending=True, stable=True).tolist()
        return order[1:] if len(order) == 2 else order[:_MOST_SERIES]

    def _calibration(self, metrics: Classification) -> dict[str, Any]:
        """How often what is predicted with some probability is the case, in bins of equally many rows.

        Of two classes that is the probability of the rarer one, else of the class that is predicted.
        """
        targets, probabilities = self._batch["targets"].long(), self._outputs.double().softmax(1)
        number: int | None = None
        if len(metrics.classes) == 2:
            (number,) = self._shown()
            probability, right = probabilities[:, number], targets == number
        else:
            probability, predicted = probabilities.max(1)
            right = predicted == targets
        order = probability.argsort(stable=True)
        bins = []
        for part in order.tensor_split(max(1, min(_BINS, len(order) // _LEAST_IN_BIN))):
            hits = int(right[part].sum())
            low, high = wilson_interval(hits, len(part))
            share, mean = hits / len(part), probability[part].mean().item()
            bins.append({"probability": mean, "share": share, "low": low, "high": high, "rows": len(part)})
        return {"of": None if number is None else metrics.classes[number], "bins": bins}

    def _worst(self) -> list[dict[str, Any]]:
        """The rows with the most confident mistakes, or with the largest losses."""
        scores = mistake_score(self._metrics, self._outputs, self._losses, self._batch)
        top = scores.argsort(descending=True, stable=True)[:_WORST]
        top = top[scores[top].isfinite()]
        if not len(top):
            return []
        examples = self._recipe.examples(self._outputs[top], {name: one[top] for name, one in self._batch.items()})
        cells = cells_of(self._dataset.fit, {name: one[top] for name, one in self._columns.items()})
        names, found = self._dataset.index.names, self._dataset.table.lines(self._rows[top.numpy()]).tolist()
        lines = found if names.units == ("line",) else [names.row(one) for one in found]
        return [
            {"line": line, **example, "cells": {name: column[row] for name, column in cells.items()}}
            for row, (line, example) in enumerate(zip(lines, examples, strict=True))
        ]

    def _residuals(self) -> list[dict[str, float]]:
        """Predictions and how much too high they are, of some rows."""
        assert isinstance(self._metrics, Regression)
        errors, targets = self._metrics.errors(self._outputs, self._batch)
        chosen = _evenly(len(errors), _RESIDUALS)
        pairs = zip((targets + errors)[chosen, 0].tolist(), errors[chosen, 0].tolist(), strict=True)
        return [{"predicted": predicted, "error": error} for predicted, error in pairs]

    def intervals(self, run: RunDirectory, step: int) -> dict[str, Any] | None:
        """The width of prediction intervals, and the share of test rows within; None if there are too few rows."""
        held_out = held_out_errors(self._recipe, run, step)
        try:
            held_out.rank(LEVEL)
        except UserError:
            return None
        intervals = Intervals(LEVEL, held_out)
        found = {"level": LEVEL, "rows": len(held_out.errors), "width": self._width(intervals)}
        if not self._recipe.is_tested:
            return found
        tests = self._recipe.dataset("test")
        rows = rows_at_random(len(tests), MOST_ROWS, seed=self._recipe.seed)
        outputs, _, batch = self._passed(fetched(tests, rows)[1])
        low, high = intervals.ends(self._recipe, self._model, outputs, batch)
        targets = batch["targets"].double().reshape(low.shape)
        within = int(((low <= targets) & (targets <= high)).sum())
        return {**found, "tested": len(low), "within": within, "share": list(wilson_interval(within, len(low)))}

    def _width(self, intervals: Intervals) -> float:
        """The median."""
        chosen = _evenly(len(self._outputs), _RESIDUALS)
        batch = {name: one[chosen] for name, one in self._batch.items()}
        ends = intervals.columns(self._recipe, self._model, self._outputs[chosen], batch)
        return float(np.median(np.subtract(ends["upper"], ends["lower"])))

    def _first(self, count: int) -> dict[str, Tensor]:
        chosen = _evenly(len(self._rows), count)
        return {name: column[chosen] for name, column in self._columns.items()}


def _evenly(rows: int, most: int) -> Tensor:
    """At most so many of the rows, evenly spaced."""
    count = min(rows, most)
    return torch.arange(count) * rows // count


def _with_cells(
    columns: Batch, indices: Sequence[CellIndex], donors: Tensor, of: Batch | None = None
) -> dict[str, Tensor]:
    """Fetched rows whose cells at some indices are those of the `donors`, rows of `of`, by default of the same rows."""
    changed = dict(columns)
    for name, number in indices:
        if changed[name] is columns[name]:
            changed[name] = columns[name].clone()
        changed[name][:, number] = (of or columns)[name][donors, number]
    return changed


def _quantiles(numbers: Tensor) -> Tensor:
    """Rows whose numbers are evenly spaced among those that are there, ascending and different."""
    order = numbers.argsort(stable=True)
    order = order[~numbers[order].isnan()]
    chosen: list[int] = []
    for row in order[(torch.linspace(0, 1, _POINTS) * max(0, len(order) - 1)).long()].tolist() if len(order) else []:
        if not chosen or numbers[row] != numbers[chosen[-1]]:
            chosen.append(row)
    return torch.tensor(chosen, dtype=torch.int64)


def _frequent(codes: Tensor) -> Tensor:
    """A row of each of the most frequent codes, the most frequent first."""
    found, counts = codes.unique(return_counts=True)
    top = found[counts.argsort(descending=True, stable=True)[:_POINTS]]
    return torch.stack([(codes == code).nonzero()[0, 0] for code in top])
