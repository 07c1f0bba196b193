"""`blitz.Run`: the metrics and the model of a run, and evaluation, prediction and export from Python."""

import html
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
from torch import nn

from blitz.api.evaluate_run import EvaluateSettings, evaluate, warn
from blitz.api.export_run import ExportSettings, export_checkpoint
from blitz.api.predict_rows import PredictSettings, predict_csv, predict_dataset
from blitz.api.write_report import write_report
from blitz.data.plan import Split
from blitz.errors import require
from blitz.export.formats import Format
from blitz.launch.scale import Scale
from blitz.outputs.metrics import format_metric
from blitz.recipe import Recipe
from blitz.run_files.checkpoint_files import Which
from blitz.run_files.directory import RunDirectory
from blitz.run_files.listing import list_runs
from blitz.run_files.open import note_on_code, stored_recipe
from blitz.training.model import checkpoint_model


class Run:
    """A run in its directory, finished or not.

    Nothing is cached: each property reads the run's files, so it shows the run's current state.
    """

    def __init__(self, directory: RunDirectory, recipe: Recipe | None = None) -> None:
        self.directory = directory
        self._recipe = recipe

    @property
    def uri(self) -> str:
        """The run directory: an absolute path or a URI."""
        return self.directory.uri

    @property
    def name(self) -> str:
        """The name of the run: the last part of its path."""
        return self.uri.partition("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run was trained with."""
        if self._recipe is None:
            self._recipe = stored_recipe(self.directory)
            if note := note_on_code(self.directory, self._recipe):
                warn(note)
        return self._recipe

    @property
    def finished(self) -> bool:
        """Whether training has finished."""
        return self.directory.read_json("result.json") is not None

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of result.json; None while it is not finished."""
        return self.directory.read_json("result.json")

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the best checkpoint by their names, as `val/accuracy`; empty before the first evaluation."""
        result = self.result
        if result is not None:
            return dict(result["metrics"])
        evaluation = self.directory.read_json("evaluations/best.json")
        return {f"val/{name}": value for name, value in evaluation["figures"].items()} if evaluation else {}

    @property
    def last_metrics(self) -> dict[str, float]:
        """The metrics of the newest evaluation, which need not be the best; empty before the first."""
        lines = [line for line in self.directory.metrics() if any(name.startswith("val/") for name in line)]
        return {name: value for name, value in lines[-1].items() if name.startswith("val/")} if lines else {}

    @property
    def history(self) -> pyarrow.Table:
        """metrics.jsonl as a table: a row for each logged step and each evaluation, null where it has no such value."""
        lines = self.directory.metrics()
        names = dict.fromkeys(name for line in lines for name in line)
        return pyarrow.table({name: [line.get(name) for line in lines] for name in names})

    def model(self, checkpoint: Which = "best") -> nn.Module:
        """The model with the weights of a checkpoint, on the CPU and in evaluation mode.

        Raises:
            UserError: if there is no such checkpoint, or if its weights are those of another model.
        """
        return checkpoint_model(self.recipe, self.directory, self.directory.checkpoint_step(checkpoint))

    def evaluate(
        self, split: Split = "val", *, checkpoint: Which = "best", scale: Scale | None = None
    ) -> dict[str, float]:
        """The metrics of a checkpoint on a split, by names such as `accuracy`; also written into `evaluations/`.

        Raises:
            UserError: if there is no such checkpoint, or there are no such rows.
        """
        settings = EvaluateSettings(self.recipe, checkpoint=checkpoint, split=split, scale=scale or Scale())
        found: dict[str, float] = evaluate(self.directory, settings)["figures"]
        return found

    def predict(
        self,
        rows: Any,
        output: str | Path | None = None,
        *,
        checkpoint: Which = "best",
        intervals: float | None = None,
        scale: Scale | None = None,
    ) -> pyarrow.Table:
        """Predictions of a checkpoint, as a table with a row for each input row: `prediction` and any probabilities.

        Args:
            rows: the path or URI of a CSV, if the recipe reads CSVs; or a data set as the recipe trains on.
            output: a CSV to write, with the predictions appended to the cells of the input; for a CSV only.
            intervals: for numbers: the share of rows that lie between the further columns `lower` and `upper`.

        Raises:
            UserError: if the recipe cannot predict for such rows.
        """
        where = scale or Scale()
        settings = PredictSettings(self.recipe, checkpoint, overwrite=True, intervals=intervals, scale=where)
        if not isinstance(rows, str | Path):
            require(output is None, "output= is for a CSV; what is predicted for a data set is returned")
            return predict_dataset(self.directory, rows, settings)
        with tempfile.TemporaryDirectory(prefix="blitz-") as folder:
            target = str(output) if output is not None else f"{folder}/predicted.csv"
            predict_csv(self.directory, str(rows), target, settings)
            return pyarrow.csv.read_csv(target)

    def export(
        self, format: Format = "torch_export", output: str | Path | None = None, *, checkpoint: Which = "best"
    ) -> str:
        """Export a checkpoint as one file that runs without blitz, by default in `export/`; returns its path.

        Raises:
            UserError: if the model cannot be exported in this format, or if the exported outputs differ.
        """
        target = None if output is None else str(output)
        settings = ExportSettings(self.recipe, format=format, checkpoint=checkpoint, output=target, overwrite=True)
        return export_checkpoint(self.directory, settings).path

    def report(self) -> str:
        """Write the run's report; returns its path."""
        (written,) = write_report([self.directory])
        return written

    def __repr__(self) -> str:
        shown = "  ".join(f"{name} {format_metric(value)}" for name, value in _summary(self.metrics).items())
        return f"<Run {self.uri}{'' if self.finished else ' (not finished)'}  {shown}>"

    def _repr_html_(self) -> str:
        """Metrics and curves, shown in a notebook."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td style='text-align:right'>{format_metric(value)}</td></tr>"
            for name, value in _summary(self.metrics).items()
        )
        state = "" if self.finished else " (not finished)"
        return (
            f"<div><b>{html.escape(self.name)}</b>{state}<br><code>{html.escape(self.uri)}</code>"
            f"<table>{rows}</table>{_curves(self.directory)}</div>"
        )


def _summary(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics, without those of single classes such as `val/accuracy/cat`."""
    return {name: value for name, value in metrics.items() if name.count("/") == 1}


def _curves(directory: RunDirectory) -> str:
    """The curves as SVG; empty if the extra that draws them is not installed."""
    from blitz.extras import MissingExtra
    from blitz.report.page import run_page
    from blitz.report.record import read_record

    try:
        return "".join(run_page(read_record(directory)).svgs().values())
    except MissingExtra:
        return ""


def open_run(name: str | Path, *, recipe: Recipe | None = None, **objects: Any) -> Run:
    """The run in a directory: a path, a URI, or the name of one in `runs/`.

    Args:
        recipe: the recipe that the run was trained with, if the run's reference cannot be resolved, for instance
            because it was defined in a notebook.
        objects: for a run of plain objects: `model=`, `train=`, `val=`, `loss=`, `metrics=` as in `blitz.train`; only
            those that are needed, such as `val=` to evaluate.

    Raises:
        UserError: if there is no run.
    """
    directory = RunDirectory.find(str(name))
    if objects:
        from blitz.objects import with_objects

        recipe = with_objects(stored_recipe(directory), objects)
    run = Run(directory, recipe)
    run.recipe  # noqa: B018  (raises if there is no such run)
    return run


def runs(storage: str | Path = "runs") -> list[Run]:
    """The runs in a storage, sorted by name.

    Raises:
        UserError: if it cannot be listed.
    """
    found = [one for one in list_runs(str(storage)) if not one.is_sweep and not one.damage]
    return [Run(RunDirectory.of(str(storage), one.name)) for one in sorted(found, key=lambda one: one.name)]
