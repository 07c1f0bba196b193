"""Predict for every row of a CSV with a checkpoint of a run.

    python -m jobs.predict RUN INPUT.csv OUTPUT.csv [flags]

RUN is the run directory that jobs.train printed, a path or a URI; a name alone is looked for in runs/. OUTPUT.csv holds
the rows of INPUT.csv in their order with columns appended: the prediction, probabilities where it is one of classes,
and `error`, which says why a row has none. The same command again goes on where a killed one was.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import pyarrow
import tyro

from blitz.data.csv.appended import ERROR, write_appended
from blitz.data.csv.bad_rows import what_is_wrong
from blitz.data.csv.table import InputRows
from blitz.data.plan import Plan
from blitz.errors import UserError, require
from blitz.launch.launch import launch, place_of
from blitz.launch.scale import Scale
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json
from blitz.storage import exists, is_folder
from blitz.training import prediction
from blitz.training.prediction import PredictJob
from blitz.training.run_directory import RunDirectory
from jobs.command_line import run
from jobs.stored_run import parse_for_run

PROG = "python -m jobs.predict"

_APPENDED = re.compile(r"(prediction|probability)(_.*)?|error")


@dataclass(frozen=True)
class PredictSettings:
    """What `jobs.predict` is told. The recipe is the run's; its files may lie elsewhere by now."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    checkpoint: Literal["best", "last"] | int = "best"
    """Which checkpoint: the best, the newest, or that of a step."""
    overwrite: bool = False
    """Write OUTPUT.csv anew where it is there already."""
    scale: Scale = field(default_factory=Scale)


def main(words: list[str]) -> None:
    """Predict as the command line says."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nFlags: those of `{PROG} RUN INPUT.csv OUTPUT.csv --help`, which depend on the run's recipe.")
        return
    require(
        len(words) >= 3 and not any(word.startswith("-") for word in words[:3]),
        f"name a run, a CSV and a file to write first: {PROG} RUN INPUT.csv OUTPUT.csv [flags]",
    )
    directory, settings = parse_for_run(PredictSettings, words, positions=3, prog=PROG, description=__doc__ or "")
    rows, errors = predict(directory, words[1], words[2], settings)
    without = f", {errors:,} without a prediction: see the column '{ERROR}'" if errors else ""
    print(f"{words[2]}: {rows:,} rows{without}")


_NOT_FINITE = "the prediction is not a finite number"


def predict(directory: RunDirectory, source: str, target: str, settings: PredictSettings) -> tuple[int, int]:
    """Write `source` with predictions appended to `target`; how many rows it has, and how many have none.

    What is done is kept in `<target>.parts` until all is.

    Raises:
        UserError: if it can never be done.
    """
    require(not is_folder(target), f"{target} is a folder; name a file to write")
    require(
        settings.overwrite or not exists(target),
        f"{target} is there already; name another file, or add --overwrite",
    )
    parts = RunDirectory.of(f"{target}.parts")
    try:
        parts.probe()
    except UserError as error:
        raise UserError(f"{target} cannot be written; name a file in a folder that can be") from error
    with place_of(settings.scale), parts.locked():
        recipe = settings.recipe
        dataset = recipe.inputs(source)
        require(len(dataset) > 0, f"{source} has no row to predict for")
        for name in filter(_APPENDED.fullmatch, dataset.index.dialect.names):
            raise UserError(f"{source} has a column '{name}' of its own, as may be appended; give it another name")
        step = directory.checkpoint_step(settings.checkpoint)
        plan = Plan.of_evaluation(rows=len(dataset), batch_size=recipe.global_batch_size)
        job = PredictJob(recipe, plan, directory, step, parts)
        _go_on(job, dataset)
        launch(job, {"val": dataset}, settings.scale)
        columns = [name for name in next(job.predictions()).column_names if name not in prediction.MARKS]
        found = write_appended(dataset.index, target, columns, _said(job), dataset.left_out)
    parts.delete()
    return found


def _go_on(job: PredictJob, dataset: InputRows) -> None:
    """Keep the parts that are there if they are of the same job; else begin anew."""
    of = {
        "weights": hashlib.sha256(job.run.read(f"checkpoints/{job.step}/weights.safetensors")).hexdigest(),
        "recipe": recipe_to_json(job.recipe),
        "csv": dataset.index.content,
    }
    of = json.loads(json.dumps(of))
    if job.parts.read_json("job.json") != of:
        job.parts.delete()
        job.parts.write_json("job.json", of)
    elif batches := job.first_step():
        print(f"continues after {min(batches * job.plan.global_batch_size, len(dataset)):,} rows")


def _said(job: PredictJob) -> Iterator[pyarrow.Table]:
    for table in job.predictions():
        records = table[prediction.ERROR].to_pylist()
        said = table.drop_columns(prediction.MARKS)
        finite = np.ones(len(said), bool)
        for column in said.columns:
            if pyarrow.types.is_floating(column.type):
                finite &= np.isfinite(column.to_numpy())
        errors = [
            what_is_wrong(record) if record else "" if is_finite else _NOT_FINITE
            for record, is_finite in zip(records, finite.tolist(), strict=True)
        ]
        yield said.append_column(ERROR, pyarrow.array(errors, pyarrow.string()))


if __name__ == "__main__":
    run(main)
