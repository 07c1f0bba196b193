"""Which run a command means: a new one, or one that it continues."""

import hashlib
import json
import shlex
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

from blitz.data.plan import Plan
from blitz.errors import UserError, require
from blitz.recipe import Recipe
from blitz.recipes import differences, recipe_from_json, settings_of
from blitz.storage import folder_of
from blitz.training.run_directory import RunDirectory

Resume = Literal["never", "auto", "must"]


def open_run(recipe: Recipe, *, storage: str, run: str | None, resume: Resume) -> RunDirectory:
    """The directory of the run that `recipe` is to have; it is there and can be written.

    Without a name it is that of the recipe and a hash of its settings, so the same command finds the same run. A run
    counts once it has a checkpoint.

    Raises:
        UserError: if the storage cannot be written, if the run was made with other settings, or if `resume` says
            `never` and there is one of that name, or `must` and there is none.
    """
    directory = RunDirectory.of(storage, run or default_name(recipe))
    require_lasting(directory)
    begun = bool(directory.checkpoint_steps())
    require(begun or resume != "must", f"--resume must: {directory} has no checkpoint; begin with --resume auto")
    if begun and resume == "never":
        require(run is None, f"--resume never: there is a run in {directory}; name another with --run")
        directory, begun = _next_free(recipe, storage), False
    stored = directory.read_json("recipe.json") if begun else None
    if stored is not None and (changed := _changes(stored, recipe)):
        raise UserError(
            f"{directory} was made with other settings: {', '.join(changed)}; "
            "give the old ones to continue it, or another name with --run"
        )
    directory.probe()
    return replace(directory, patient=True)


def require_name(run: str | None) -> None:
    """Refuse as the name of a run what would lead out of its storage.

    Raises:
        UserError: if it is empty or a path.
    """
    named = run is None or (run not in ("", ".", "..") and "/" not in run)
    require(named, f"--run is '{run}'; it must be a name without '/': where runs lie is said by --storage")


def require_lasting(directory: RunDirectory) -> None:
    """Refuse the folder into which Ray unpacks a submitted job: it is deleted after it.

    Raises:
        UserError: if `directory` lies in it.
    """
    require(
        "working_dir_files" not in Path(directory.uri).parts,
        f"--storage: {directory} is in the folder of the submitted job, which Ray deletes; "
        "name a folder that all nodes mount, or a URI such as s3://bucket/runs",
    )


def _next_free(recipe: Recipe, storage: str) -> RunDirectory:
    names = (f"{default_name(recipe)}-{number}" for number in count(2))
    return next(free for name in names if not (free := RunDirectory.of(storage, name)).exists("recipe.json"))


def default_name(recipe: Recipe) -> str:
    """`<recipe>-<hash>`, where the hash is of all that decides what is learned."""
    settings = json.dumps(settings_of(recipe), sort_keys=True).encode()
    return f"{recipe.name}-{hashlib.sha256(settings).hexdigest()[:6]}"


def _changes(stored: dict[str, Any], recipe: Recipe) -> list[str]:
    if stored["recipe"] != recipe.name:
        return [f"recipe (was {stored['recipe']}, is {recipe.name})"]
    return differences(stored, recipe)


def stored_recipe(run: RunDirectory) -> Recipe:
    """The recipe that a run was made with.

    Raises:
        UserError: if there is no run.
    """
    stored = run.read_json("recipe.json")
    if stored is None:
        best = RunDirectory.of(run.uri, "best")
        require(not run.exists("sweep.json"), f"{run} is a sweep; name its best run, {best}")
        raise UserError(
            f"there is no run in {run}: it has no recipe.json; "
            f"python -m jobs.runs --storage {shlex.quote(folder_of(run.uri))} lists those that are there"
        )
    try:
        return recipe_from_json(stored)
    except UserError as error:
        raise UserError(f"{run}/recipe.json: {error}") from error


def finished_result(run: RunDirectory, plan: Plan) -> dict[str, Any] | None:
    """The content of result.json if the run has nothing left to do.

    Raises:
        UserError: if it has already gone further than the plan.
    """
    step = max(run.checkpoint_steps(), default=0)
    if step > plan.total_steps:
        raise UserError(
            f"{run} has already trained for {step} steps, and --epochs or --max-steps asks for {plan.total_steps}; "
            "ask for more, or name another run with --run"
        )
    result = run.read_json("result.json")
    return result if result and result["steps"] == plan.total_steps else None
