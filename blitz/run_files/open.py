"""Opening the run of a command: a new one, or one to resume."""

import hashlib
import json
import re
import shlex
from dataclasses import replace
from itertools import count
from pathlib import Path, PurePath
from typing import Any, Literal

from blitz.data.plan import Plan
from blitz.errors import UserError, require
from blitz.project import source_files
from blitz.recipe import Recipe
from blitz.recipes import SOURCE_KEY, recipe_from_json, reference_of
from blitz.run_files.code import changed_code
from blitz.run_files.directory import RunDirectory
from blitz.run_files.folder import Directory
from blitz.settings import differences, settings_of
from blitz.storage import folder_of
from blitz.uris import is_uri

Resume = Literal["never", "auto", "must"]

# ASCII only, because some file systems equate the two encodings of é. No dot at its end, which some drop,
# and no - at its start, which commands take for a flag.
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._+=,@-]*[A-Za-z0-9_+=,@-])?")
_LONGEST_NAME = 128


def open_run(
    recipe: Recipe, *, storage: str, run: str | None, resume: Resume, resume_changed_code: bool = False
) -> RunDirectory:
    """The directory of the run that `recipe` is to have; it exists and can be written.

    Without a name it is that of the recipe and a hash of its settings, so the same command finds the same run. A run
    counts once it has a checkpoint.

    Raises:
        UserError: if the storage cannot be written, if the run was made with other settings or, unless
            `resume_changed_code`, with other code, or if `resume` says `never` and there is one of that name, or `must`
            and there is none.
    """
    directory = RunDirectory.of(storage, run or default_name(recipe))
    require_lasting(directory)
    require_distinct(directory)
    begun = bool(directory.checkpoint_steps())
    require(begun or resume != "must", f"--resume must: {directory} has no checkpoint; start with --resume auto")
    if begun and resume == "never":
        require(run is None, f"--resume never: there is a run in {directory}; name another with --run")
        directory, begun = _next_free(recipe, storage), False
    stored = directory.read_json("recipe.json") if begun else None
    if stored is not None and (changed := _changes(stored, recipe)):
        raise UserError(
            f"{directory} was made with other settings: {', '.join(changed)}; "
            "give the old ones to continue it, or another name with --run"
        )
    if begun and not resume_changed_code and (change := code_change(directory, recipe)):
        raise UserError(
            f"{directory}: its code has changed since it was made: {change}; give --resume-changed-code to continue it "
            "with the code as it is now, or another name with --run"
        )
    directory.probe()
    return replace(directory, patient=True)


def require_name(run: str | None) -> None:
    """Refuse a name of a run that would lead out of its storage, or that a path, a URI, a shell, a terminal or another
    file system would read in another way.

    Raises:
        UserError: if it is such a name.
    """
    if run is None:
        return
    require("/" not in run, f"--run is {run!r}; it must be a name without '/': --storage gives their directory")
    require(len(run) <= _LONGEST_NAME, f"--run has {len(run)} characters; at most {_LONGEST_NAME} may be in a name")
    require(
        _NAME.fullmatch(run) is not None,
        f"--run is {run!r}; a name starts with a letter from a to z, a digit or _, may also have any of . - + = , @ in "
        "it, and does not end with a dot",
    )


def require_distinct(directory: RunDirectory) -> None:
    """Refuse a new run on a disk whose name differs from another one's only in upper and lower case.

    Many file systems treat both as one directory. Keys of object stores are case-sensitive, so there both may exist.

    Raises:
        UserError: if there is another one.
    """
    if not directory.appends:
        return
    try:
        others = Directory(folder_of(directory.uri)).names()
    except OSError as error:
        raise directory.refused("read", error) from error
    same = [name for name in others if name.casefold() == directory.name.casefold()]
    require(
        not same or directory.name in same,
        f"--run is {directory.name!r}, and there is a run {' '.join(same)!r} in that storage, which many file systems "
        "treat as the same; name another, or write it like that one",
    )


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
    """`<recipe>-<hash>`, where the hash is that of the settings that decide what is learned."""
    settings = json.dumps(settings_of(recipe), sort_keys=True).encode()
    return f"{recipe.name}-{hashlib.sha256(settings).hexdigest()[:6]}"


def _changes(stored: dict[str, Any], recipe: Recipe) -> list[str]:
    reference = reference_of(type(recipe))
    # The same file may be referred to from another folder.
    if PurePath(stored["recipe"]).name != PurePath(reference).name:
        return [f"recipe (was {stored['recipe']}, is {reference})"]
    # The stored reference may be relative to another folder than the current one.
    return differences(recipe_from_json(stored, type(recipe)), recipe)


def code_change(run: RunDirectory, recipe: Recipe, *, in_both: bool = False) -> str:
    """What has changed in the code of a run's recipe since it was made, in one line; empty if nothing has.

    With `in_both`, files that are new or no longer a part of it do not count.
    """
    stored = run.read_json("recipe.json")
    return changed_code(run, stored, recipe.sources(), in_both=in_both) if stored else ""


def note_on_code(run: RunDirectory, recipe: Recipe) -> str:
    """What to say to whoever uses a run whose code has changed since; empty if it has not."""
    # Of a run of plain objects only some may be at hand.
    change = code_change(run, recipe, in_both=True)
    return f"{run}: its code has changed since it was made, and is used as it is now: {change}" if change else ""


def note_on_files(run: RunDirectory) -> str:
    """Like `note_on_code`, without importing the recipe, for a run or a sweep; empty if the recipe's files are not
    found, for instance because a program defines it."""
    stored = run.read_json("recipe.json")
    named = [stored["recipe"], stored.get("model")] if stored else []
    if stored is None and (stored := run.read_json("sweep.json")) is not None:
        named = [dict(stored["recipe"]).get("recipe")]
    paths = (stored or {}).get(SOURCE_KEY)
    files = [_located(one, run).partition(":")[0] for one in named if isinstance(one, str)]
    sources = source_files([Path(file) for file in files], paths) if isinstance(paths, dict) else {}
    change = changed_code(run, stored or {}, sources, in_both=True)
    return f"{run}: its code has changed since it was made: {change}" if change else ""


def _located(reference: str, run: RunDirectory) -> str:
    """A reference to a file that is not below the current folder, as one to the file beside or above its run."""
    file, colon, member = reference.partition(":")
    if file.endswith(".py") and not Path(file).exists() and not is_uri(run.uri):
        for folder in Path(run.uri).parents:
            if (folder / file).is_file():
                return f"{folder / file}{colon}{member}"
    return reference


def stored_recipe(run: RunDirectory) -> Recipe:
    """The recipe of a run. Its file is searched for from the current folder, then from the folders above the run.

    Raises:
        UserError: if there is no run, or if its recipe cannot be found.
    """
    stored = run.read_json("recipe.json")
    if stored is None:
        best = RunDirectory.of(run.uri, "best")
        require(not run.exists("sweep.json"), f"{run} is a sweep; name its best run, {best}")
        raise UserError(
            f"there is no run in {run}: it has no recipe.json; "
            f"blitz runs --storage {shlex.quote(folder_of(run.uri))} lists those that are there"
        )
    try:
        return recipe_from_json({**stored, "recipe": _located(str(stored["recipe"]), run)})
    except UserError as error:
        file = str(stored["recipe"]).partition(":")[0]
        elsewhere = file.endswith(".py") and not Path(file).exists()
        where = "; give this command in the folder where the run was started" if elsewhere else ""
        raise UserError(f"{run}/recipe.json: {error}{where}") from error


def finished_result(run: RunDirectory, plan: Plan, *, patience: int | None) -> dict[str, Any] | None:
    """The content of result.json if the run is finished; `patience` is that of its recipe now.

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
    if result is None or plan.total_steps == result["steps"]:
        return result
    # A run that was stopped early is finished as long as neither more steps nor more patience is asked for.
    had = result.get("patience")
    is_same = had is None or (patience is not None and patience <= had)
    return result if plan.total_steps == result.get("stopped_before") and is_same else None


def changed_schedule(run: RunDirectory, recipe: Recipe, plan: Plan) -> str:
    """A message if a resumed run follows a schedule of another length from here on; else an empty string.

    Its weights are then those of neither schedule from the start, so the user has to confirm it by a flag.

    Raises:
        UserError: if it is not.
    """
    step = max(run.checkpoint_steps(), default=0)
    stored, planned = run.read_json("recipe.json"), run.read_json("plan.json")
    if not step or stored is None or planned is None:
        return ""
    before, changes = recipe_from_json(stored, type(recipe)), []
    for name, optim in recipe.schedules().items():
        was, now = getattr(before, name).schedule_steps(Plan(**planned)), optim.schedule_steps(plan)
        if was == now:
            continue
        change = f"{optim.schedule} schedule over {now} steps, before over {was}"
        require(
            optim.schedule_epochs is not None,
            f"{run} is at step {step} of a {change}: its learning rate would jump; train that long from the start with "
            f"another --run (--init-from {shlex.quote(run.uri)} starts from these weights), or let the rate follow "
            f"the new schedule from here with --{name}.schedule-epochs {now / plan.steps_per_epoch:g}",
        )
        changes.append(change)
    return "; ".join(changes)
