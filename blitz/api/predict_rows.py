"""Predicting for rows with a checkpoint of a run, as the command line and Python both ask for it."""

import hashlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeVar
from uuid import uuid4

import numpy as np
import pyarrow
import tyro

from blitz.api.evaluate_run import warn
from blitz.data.arrays import MapStyleDataset
from blitz.data.csv.prediction_csv import ERROR, write_appended
from blitz.data.csv.reading.bad_rows import what_is_wrong
from blitz.data.csv.table import InputRows
from blitz.data.plan import Plan
from blitz.data.text.sentences import split_lines
from blitz.errors import DataError, UserError, require
from blitz.launch.launch import launch, placed
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.objects import ObjectRecipe
from blitz.recipe import Recipe
from blitz.run_files.checkpoint_files import Which
from blitz.run_files.directory import RunDirectory
from blitz.run_files.folder import Directory
from blitz.storage import beside, exists, folder_of, is_folder, joined, locked, name_of, open_place, written_whole
from blitz.training import prediction
from blitz.training.prediction import PredictJob

Say = Callable[[str], None]
Rows = TypeVar("Rows", bound=MapStyleDataset)
Found = TypeVar("Found")

_APPENDED = re.compile(r"(prediction|probability)(_.*)?|error")


@dataclass(frozen=True)
class PredictSettings:
    """What `blitz predict` takes. The recipe is the run's; its files may lie elsewhere by now."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    checkpoint: Which = "best"
    """Which checkpoint: the best, the newest, or that of a step."""
    overwrite: bool = False
    """Write OUTPUT.csv anew where it is there already."""
    escape_formulas: bool = False
    """Write an apostrophe before cells of INPUT.csv that a spreadsheet would take for a formula, as =1+1 or @name; they
    stay as they are by default. Cells of appended columns always have it."""
    scale: Scale = field(default_factory=Scale)


_NOT_FINITE = "the prediction is not a finite number"


def predict_csv(
    directory: RunDirectory, source: str, target: str, settings: PredictSettings, *, say: Say = print
) -> tuple[int, int]:
    """Write `source` with predictions appended to `target`; how many rows it has, and how many have none.

    What is done is kept in `<target>.parts` until all is.

    Raises:
        UserError: if it can never be done.
    """
    recipe = settings.recipe

    def write(job: PredictJob, dataset: InputRows) -> tuple[int, int]:
        columns = [name for name in next(job.predictions()).column_names if name not in prediction.MARKS]
        escape = settings.escape_formulas
        return write_appended(dataset.index, target, columns, _said(job), dataset.left_out, escape_formulas=escape)

    def inputs() -> tuple[InputRows, str]:
        dataset = recipe.inputs(source)
        require(isinstance(dataset, InputRows), f"recipe {recipe.name}: inputs() gave rows that are not those of a CSV")
        assert isinstance(dataset, InputRows)
        require(len(dataset) > 0, f"{source} has no row to predict for")
        for name in filter(_APPENDED.fullmatch, dataset.index.dialect.names):
            raise UserError(f"{source} has a column '{name}' of its own, as may be appended; give it another name")
        return dataset, dataset.index.content

    return _predicted(directory, target, settings, inputs, write, say)


def predict_lines(
    directory: RunDirectory, source: str, target: str, settings: PredictSettings, *, say: Say = print
) -> None:
    """Write a prediction for each line of `source` to `target`; either may be -, standard input and output.

    Raises:
        UserError: if it can never be done.
    """
    lines = split_lines(_read_text(source))
    # A blank line has nothing to predict for, and stays where it is.
    places = [place for place, line in enumerate(lines) if line.strip()]
    said = [""] * len(lines)

    def inputs() -> tuple[MapStyleDataset, str]:
        texts = [lines[place] for place in places]
        return settings.recipe.line_inputs(texts), hashlib.sha256("\n".join(texts).encode()).hexdigest()

    def write(job: PredictJob, dataset: MapStyleDataset) -> None:
        if places:
            found = pyarrow.concat_tables(job.predictions())["prediction"].to_pylist()
            for place, text in zip(places, found, strict=True):
                # A line of its own, whatever was said.
                said[place] = " ".join(str(text).split())
        text = "".join(f"{line}\n" for line in said)
        if target == "-":
            # As it was read, in UTF-8, whatever the terminal takes.
            sys.stdout.buffer.write(text.encode())
            return
        with written_whole(target) as put:
            put(text.encode())
        say(f"{target}: {len(said):,} lines")

    if target == "-":
        # What is asked for in a shell is answered by this process, which other nodes could not write to.
        settings = replace(settings, scale=replace(settings.scale, num_workers=0))
        with tempfile.TemporaryDirectory(prefix="blitz-") as folder:
            return _predicted(directory, f"{folder}/lines", settings, inputs, write, say)
    return _predicted(directory, target, settings, inputs, write, say)


def _read_text(source: str) -> str:
    try:
        if source == "-":
            data = sys.stdin.buffer.read()
        else:
            files, path = open_place(source)
            with files.open_input_stream(path, compression=None) as stream:
                data = stream.read()
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{source} is not there; name a text file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{'what was piped in' if source == '-' else source} is not encoded in UTF-8") from error


def _predicted(
    directory: RunDirectory,
    target: str,
    settings: PredictSettings,
    inputs: Callable[[], tuple[Rows, str]],
    write: Callable[[PredictJob, Rows], Found],
    say: Say,
) -> Found:
    """Predict for `inputs`, rows and the hash of what they are, and write it; parts are kept until that is done."""
    require(not is_folder(target), f"{target} is a folder; name a file to write")
    placement = Placement(settings.scale)
    with placed(placement), _alone(target, overwrite=settings.overwrite):
        recipe, parts = settings.recipe, Directory(beside(target, ".parts"), flag="OUTPUT")
        dataset, content = inputs()
        step = directory.checkpoint_step(settings.checkpoint, tell=warn)
        plan = Plan.of_evaluation(rows=len(dataset), batch_size=recipe.global_batch_size)
        job = PredictJob(recipe, plan, directory, step, parts)
        if len(dataset):
            # On an object store no lock keeps another job away, so each has parts of its own.
            job = job if parts.appends else job.apart(content)
            if rows_done := job.resume(content):
                say(f"continues after {rows_done:,} rows")
            launch(job, {"val": dataset}, placement)
        found = write(job, dataset)
        parts.delete()
    return found


@contextmanager
def _alone(target: str, *, overwrite: bool) -> Iterator[None]:
    """Keep other processes from writing the same file; object stores have no locks, but show files only when whole.

    Raises:
        UserError: if another one does, or if the file is there already or cannot be written.
    """
    with ExitStack() as held:
        try:
            # Not in the folder of parts, which is deleted at the end.
            held.enter_context(locked(joined(folder_of(target), f".{name_of(target)}.lock")))
            is_free = overwrite or not exists(target)
            if is_free:
                Directory.of(beside(target, ".parts")).probe()
        except BlockingIOError:
            raise UserError(f"another process is writing {target}; wait for it, or name another file") from None
        except (OSError, UserError) as error:
            raise UserError(f"{target} cannot be written; name a file in a folder that can be") from error
        require(is_free, f"{target} is there already; name another file, or add --overwrite")
        yield


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


def predict_dataset(
    directory: RunDirectory, rows: object, settings: PredictSettings, *, say: Say = print
) -> pyarrow.Table:
    """Predictions for each row of a data set, in its order, as a table; `error` says why a row has none.

    `rows` are in the form that the recipe trains on: a data set with `__getitems__`, or for a run of plain objects any
    map-style one.

    Raises:
        UserError: if it can never be done.
    """
    recipe = settings.recipe
    dataset = recipe.rows_of(rows, what="rows") if isinstance(recipe, ObjectRecipe) else rows
    require(isinstance(dataset, MapStyleDataset), f"{type(rows).__name__} is no data set: it has no __getitems__")
    assert isinstance(dataset, MapStyleDataset)
    placement = Placement(settings.scale)
    with placed(placement), tempfile.TemporaryDirectory(prefix="blitz-") as folder:
        plan = Plan.of_evaluation(rows=len(dataset), batch_size=recipe.global_batch_size)
        step = directory.checkpoint_step(settings.checkpoint, tell=warn)
        # On a cluster the parts have to lie where every node sees them.
        parts = Directory.of(folder) if placement.in_process else directory.part(f"predictions-{uuid4().hex}")
        job = PredictJob(recipe, plan, directory, step, parts)
        launch(job, {"val": dataset}, placement)
        found = pyarrow.concat_tables(_said(job))
        parts.delete()
    return found
