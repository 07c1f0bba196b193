"""Predict for every row of a CSV, or every line of a text, with a checkpoint of a run.

    python -m jobs.predict RUN INPUT.csv OUTPUT.csv [flags]
    python -m jobs.predict RUN INPUT.txt OUTPUT.txt [flags]
    echo 'A man rides a bike.' | python -m jobs.predict RUN - [flags]

RUN is the run directory that jobs.train printed, a path or a URI; a name alone is looked for in runs/. OUTPUT.csv holds
the rows of INPUT.csv in their order with columns appended: the prediction, probabilities where it is one of classes,
and `error`, which says why a row has none. The same command again goes on where a killed one was.

A recipe that translates takes texts, too, one sentence a line: a file whose name ends in .txt, or with - what is piped
in. It writes a line for each, an empty one for an empty one; without OUTPUT, or with -, to where it was started.
"""

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pyarrow
import tyro

from blitz.cli.stored_run import chosen_checkpoint, parse_for_run
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
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json
from blitz.runs.directory import RunDirectory
from blitz.storage import (
    beside,
    exists,
    fingerprint,
    folder_of,
    is_folder,
    joined,
    locked,
    name_of,
    open_place,
    written_whole,
)
from blitz.training import prediction
from blitz.training.prediction import PredictJob

PROG = "python -m jobs.predict"

Rows = TypeVar("Rows", bound=MapStyleDataset)
Found = TypeVar("Found")

_APPENDED = re.compile(r"(prediction|probability)(_.*)?|error")


@dataclass(frozen=True)
class PredictSettings:
    """What `jobs.predict` is told. The recipe is the run's; its files may lie elsewhere by now."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    checkpoint: Literal["best", "last"] | int = "best"
    """Which checkpoint: the best, the newest, or that of a step."""
    overwrite: bool = False
    """Write OUTPUT.csv anew where it is there already."""
    escape_formulas: bool = False
    """Write an apostrophe before cells of INPUT.csv that a spreadsheet would take for a formula, as =1+1 or @name; they
    stay as they are by default. Cells of appended columns always have it."""
    scale: Scale = field(default_factory=Scale)


def main(words: list[str]) -> None:
    """Predict as the command line says."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nFlags: those of `{PROG} RUN INPUT.csv OUTPUT.csv --help`, which depend on the run's recipe.")
        return
    files = [word for word in words[:3] if word == "-" or not word.startswith("-")]
    if len(files) == 2 and is_text(files[1]):
        words, files = [*files, "-", *words[2:]], [*files, "-"]
    require(
        len(files) == 3,
        f"name a run, a CSV and a file to write first: {PROG} RUN INPUT.csv OUTPUT.csv [flags]",
    )
    directory, settings = parse_for_run(PredictSettings, words, positions=3, prog=PROG, description=__doc__ or "")
    _, source, target = files
    if is_text(source):
        predict_lines(directory, source, target, settings)
        return
    rows, errors = predict(directory, source, target, settings)
    without = f", {errors:,} without a prediction: see the column '{ERROR}'" if errors else ""
    print(f"{target}: {rows:,} rows{without}")


def is_text(source: str) -> bool:
    """Whether an input is one of lines rather than a CSV."""
    return source == "-" or source.lower().endswith(".txt")


_NOT_FINITE = "the prediction is not a finite number"


def predict(directory: RunDirectory, source: str, target: str, settings: PredictSettings) -> tuple[int, int]:
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
        require(len(dataset) > 0, f"{source} has no row to predict for")
        for name in filter(_APPENDED.fullmatch, dataset.index.dialect.names):
            raise UserError(f"{source} has a column '{name}' of its own, as may be appended; give it another name")
        return dataset, dataset.index.content

    return _predicted(directory, target, settings, inputs, write)


def predict_lines(directory: RunDirectory, source: str, target: str, settings: PredictSettings) -> None:
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
        print(f"{target}: {len(said):,} lines")

    if target == "-":
        # What is asked for in a shell is answered by this process, which other nodes could not write to.
        settings = replace(settings, scale=replace(settings.scale, num_workers=0))
        with tempfile.TemporaryDirectory(prefix="blitz-") as folder:
            return _predicted(directory, f"{folder}/lines", settings, inputs, write)
    return _predicted(directory, target, settings, inputs, write)


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
) -> Found:
    """Predict for `inputs`, rows and the hash of what they are, and write it; parts are kept until that is done."""
    require(not is_folder(target), f"{target} is a folder; name a file to write")
    placement = Placement(settings.scale)
    with placed(placement), _alone(target, overwrite=settings.overwrite):
        recipe, parts = settings.recipe, RunDirectory(beside(target, ".parts"), flag="OUTPUT")
        dataset, content = inputs()
        step = chosen_checkpoint(directory, settings.checkpoint)
        plan = Plan.of_evaluation(rows=len(dataset), batch_size=recipe.global_batch_size)
        job = PredictJob(recipe, plan, directory, step, parts)
        if len(dataset):
            if not parts.appends:
                # On an object store no lock keeps another job away, so each has parts of its own.
                job = replace(
                    job, parts=replace(parts, uri=joined(parts.uri, fingerprint(json.dumps(_identity(job, content)))))
                )
            _resume(job, content)
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
                RunDirectory.of(beside(target, ".parts")).probe()
        except BlockingIOError:
            raise UserError(f"another process is writing {target}; wait for it, or name another file") from None
        except (OSError, UserError) as error:
            raise UserError(f"{target} cannot be written; name a file in a folder that can be") from error
        require(is_free, f"{target} is there already; name another file, or add --overwrite")
        yield


def _identity(job: PredictJob, content: str) -> dict[str, Any]:
    """What decides which predictions a job makes."""
    identity = {
        "weights": hashlib.sha256(job.run.read(f"checkpoints/{job.step}/weights.safetensors")).hexdigest(),
        "recipe": recipe_to_json(job.recipe),
        "csv": content,
    }
    return dict(json.loads(json.dumps(identity)))


def _resume(job: PredictJob, content: str) -> None:
    """Keep the parts that are there if they are of the same job; else start again."""
    identity = _identity(job, content)
    if job.parts.read_json("job.json") != identity:
        job.parts.delete()
        job.parts.write_json("job.json", identity)
    elif batches := job.first_step():
        print(f"continues after {min(batches * job.plan.global_batch_size, job.plan.eval_rows):,} rows")


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
