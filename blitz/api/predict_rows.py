"""Predicting for rows with a checkpoint of a run, for the command line and for Python."""

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
from blitz.data.csv.reading.bad_rows import fault_message
from blitz.data.csv.table import InputRows
from blitz.data.plan import Plan
from blitz.data.text.sentences import split_lines
from blitz.errors import DataError, UserError, require
from blitz.launch.launch import launch, placed
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.objects import ObjectRecipe
from blitz.outputs.conformal import require_level
from blitz.recipe import Recipe
from blitz.run_files.checkpoint_files import Which
from blitz.run_files.directory import RunDirectory
from blitz.run_files.folder import Directory
from blitz.storage import beside, exists, folder_of, is_folder, joined, locked, name_of, open_location, written_whole
from blitz.training import prediction
from blitz.training.held_out_errors import Intervals, held_out_errors
from blitz.training.prediction import PredictJob

Say = Callable[[str], None]
Rows = TypeVar("Rows", bound=MapStyleDataset)
Found = TypeVar("Found")

_APPENDED = re.compile(r"(prediction|probability)(_.*)?|error")
_BOUNDS = re.compile(r"(lower|upper)(_.*)?")


@dataclass(frozen=True)
class PredictSettings:
    """The settings of a prediction. The recipe is the run's; its files may have moved."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    checkpoint: Which = "best"
    """Which checkpoint: the best, the newest, or that of a step."""
    overwrite: bool = False
    """Replace OUTPUT.csv if it exists."""
    escape_formulas: bool = False
    """Write an apostrophe before cells of INPUT.csv that a spreadsheet would read as a formula, as =1+1 or @name; by
    default they are unchanged. Cells of appended columns always get it."""
    intervals: float | None = None
    """For numbers: append `lower` and `upper`, between which this share of rows lies, such as 0.9."""
    scale: Scale = field(default_factory=Scale)

    def __post_init__(self) -> None:
        if self.intervals is not None:
            require_level(self.intervals)


_NOT_FINITE = "the prediction is not a finite number"


def predict_csv(
    directory: RunDirectory, source: str, target: str, settings: PredictSettings, *, say: Say = print
) -> tuple[int, int]:
    """Write `source` with predictions appended to `target`; returns the number of rows, and of those without one.

    Finished parts are kept in `<target>.parts` until the end.

    Raises:
        UserError: if that cannot succeed.
    """
    recipe = settings.recipe

    def write(job: PredictJob, dataset: InputRows) -> tuple[int, int]:
        columns = [name for name in next(job.predictions()).column_names if name not in prediction.MARKS]
        escape = settings.escape_formulas
        return write_appended(dataset.index, target, columns, _columns(job), dataset.left_out, escape_formulas=escape)

    def inputs() -> tuple[InputRows, str]:
        dataset = recipe.inputs(source)
        require(isinstance(dataset, InputRows), f"recipe {recipe.name}: inputs() gave rows that are not those of a CSV")
        assert isinstance(dataset, InputRows)
        require(len(dataset) > 0, f"{source} has no row to predict for")
        taken = [_APPENDED, *([] if settings.intervals is None else [_BOUNDS])]
        for name in (name for name in dataset.index.dialect.names if any(one.fullmatch(name) for one in taken)):
            raise UserError(
                f"{source} has a column '{name}' already, as a prediction may append one; give it another name"
            )
        return dataset, dataset.index.content

    return _predicted(directory, target, settings, inputs, write, say)


def predict_lines(
    directory: RunDirectory, source: str, target: str, settings: PredictSettings, *, say: Say = print
) -> None:
    """Write a prediction for each line of `source` to `target`; either may be -, standard input and output.

    Raises:
        UserError: if that cannot succeed.
    """
    lines = split_lines(_read_text(source))
    # A blank line gets no prediction, and stays where it is.
    filled = [number for number, line in enumerate(lines) if line.strip()]
    predicted = [""] * len(lines)

    def inputs() -> tuple[MapStyleDataset, str]:
        texts = [lines[number] for number in filled]
        return settings.recipe.line_inputs(texts), hashlib.sha256("\n".join(texts).encode()).hexdigest()

    def write(job: PredictJob, dataset: MapStyleDataset) -> None:
        if filled:
            found = pyarrow.concat_tables(job.predictions())["prediction"].to_pylist()
            for number, text in zip(filled, found, strict=True):
                # One line each, whatever the prediction holds.
                predicted[number] = " ".join(str(text).split())
        text = "".join(f"{line}\n" for line in predicted)
        if target == "-":
            # In UTF-8, as it was read, whatever the terminal's encoding.
            sys.stdout.buffer.write(text.encode())
            return
        with written_whole(target) as put:
            put(text.encode())
        say(f"{target}: {len(predicted):,} lines")

    if target == "-":
        # Standard output is that of this process, which workers on other nodes could not write to.
        settings = replace(settings, scale=replace(settings.scale, num_workers=0))
        with tempfile.TemporaryDirectory(prefix="blitz-") as folder:
            return _predicted(directory, f"{folder}/lines", settings, inputs, write, say)
    return _predicted(directory, target, settings, inputs, write, say)


def _read_text(source: str) -> str:
    try:
        if source == "-":
            data = sys.stdin.buffer.read()
        else:
            files, path = open_location(source)
            with files.open_input_stream(path, compression=None) as stream:
                data = stream.read()
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{source} is not there; name a text file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{'standard input' if source == '-' else source} is not encoded in UTF-8") from error


def _predicted(
    directory: RunDirectory,
    target: str,
    settings: PredictSettings,
    inputs: Callable[[], tuple[Rows, str]],
    write: Callable[[PredictJob, Rows], Found],
    say: Say,
) -> Found:
    """Predict for `inputs`, rows and a hash of their content, and write the result; parts are kept until then."""
    require(not is_folder(target), f"{target} is a folder; name a file to write")
    placement = Placement(settings.scale)
    with placed(placement), _exclusively(target, overwrite=settings.overwrite):
        recipe, parts = settings.recipe, Directory(beside(target, ".parts"), flag="OUTPUT")
        dataset, content = inputs()
        step = directory.checkpoint_step(settings.checkpoint, report=warn)
        plan = Plan.of_evaluation(rows=len(dataset), batch_size=recipe.global_batch_size)
        job = PredictJob(recipe, plan, directory, step, parts, _intervals(directory, settings, step))
        if len(dataset):
            # Object stores have no locks, so each job has its own parts.
            job = job if parts.appends else job.with_own_parts(content)
            if rows_done := job.resume(content):
                say(f"continues after {rows_done:,} rows")
            launch(job, {"val": dataset}, placement)
        found = write(job, dataset)
        parts.delete()
    return found


def _intervals(directory: RunDirectory, settings: PredictSettings, step: int) -> Intervals | None:
    """How intervals are made, if they are asked for.

    Raises:
        UserError: if they cannot be: there are no validation rows, or too few.
    """
    if settings.intervals is None:
        return None
    held_out = held_out_errors(settings.recipe, directory, step)
    held_out.rank(settings.intervals)
    require(
        held_out.folds is None or settings.scale.shard == "no",
        "--intervals of a run with --folds does not go with --scale.shard full; leave one of them out",
    )
    return Intervals(settings.intervals, held_out)


@contextmanager
def _exclusively(target: str, *, overwrite: bool) -> Iterator[None]:
    """Lock the file against other processes; object stores have no locks, but show only complete files.

    Raises:
        UserError: if another process writes it, or if the file exists already or cannot be written.
    """
    parts = Directory(beside(target, ".parts"), flag="OUTPUT")
    with ExitStack() as held:
        try:
            # Not in the folder of parts, because that is deleted at the end.
            held.enter_context(locked(joined(folder_of(target), f".{name_of(target)}.lock")))
            is_free = overwrite or not exists(target)
            if is_free:
                Directory.of(beside(target, ".parts")).probe()
        except BlockingIOError:
            raise UserError(f"another process is writing {target}; wait for it, or name another file") from None
        except (OSError, UserError) as error:
            raise UserError(f"{target} cannot be written; name a file in a folder that can be") from error
        require(is_free, f"{target} exists already; name another file, or add --overwrite")
        try:
            yield
        finally:
            # A prediction that fails before its first part is written leaves no folder of parts behind.
            if not parts.paths():
                parts.delete()


def _columns(job: PredictJob) -> Iterator[pyarrow.Table]:
    for table in job.predictions():
        records = table[prediction.ERROR].to_pylist()
        columns = table.drop_columns(prediction.MARKS)
        finite = np.ones(len(columns), bool)
        for column in columns.columns:
            if pyarrow.types.is_floating(column.type):
                finite &= np.isfinite(column.to_numpy())
        errors = [
            fault_message(record) if record else "" if is_finite else _NOT_FINITE
            for record, is_finite in zip(records, finite.tolist(), strict=True)
        ]
        yield columns.append_column(ERROR, pyarrow.array(errors, pyarrow.string()))


def predict_dataset(
    directory: RunDirectory, rows: object, settings: PredictSettings, *, say: Say = print
) -> pyarrow.Table:
    """Predictions for each row of a data set, in its order, as a table; `error` says why a row has none.

    `rows` are in the form that the recipe trains on: a data set with `__getitems__`, or for a run of plain objects any
    map-style one.

    Raises:
        UserError: if that cannot succeed.
    """
    recipe = settings.recipe
    dataset = recipe.rows_of(rows, what="rows") if isinstance(recipe, ObjectRecipe) else rows
    require(isinstance(dataset, MapStyleDataset), f"{type(rows).__name__} is not a data set: it has no __getitems__")
    assert isinstance(dataset, MapStyleDataset)
    placement = Placement(settings.scale)
    with placed(placement), tempfile.TemporaryDirectory(prefix="blitz-") as folder:
        plan = Plan.of_evaluation(rows=len(dataset), batch_size=recipe.global_batch_size)
        step = directory.checkpoint_step(settings.checkpoint, report=warn)
        # On a cluster the parts must be where every node can read them.
        parts = Directory.of(folder) if placement.in_process else directory.part(f"predictions-{uuid4().hex}")
        job = PredictJob(recipe, plan, directory, step, parts, _intervals(directory, settings, step))
        launch(job, {"val": dataset}, placement)
        found = pyarrow.concat_tables(_columns(job))
        parts.delete()
    return found
