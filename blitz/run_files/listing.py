"""The runs in a storage and their progress, by a few small reads of each."""

import fcntl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow.fs

from blitz.errors import DamagedFile, StorageError, UserError, first_line
from blitz.recipes import recipe_from_json
from blitz.run_files.directory import RunDirectory
from blitz.run_files.goodput import goodput_of
from blitz.run_files.stored_json import parse_lines
from blitz.storage import open_location

State = Literal["running", "finished", "stopped", "never checkpointed", "damaged"]

_QUIET = timedelta(minutes=10)
_TAIL_BYTES = 1 << 16
"""Bytes read from the end of metrics.jsonl: room for a line with a thousand metrics."""
_READERS = 16
_WRITTEN = ("metrics.jsonl", "result.json", "recipe.json", "sweep.json", "trials.csv")


@dataclass(frozen=True)
class RunSummary:
    """One run, or one sweep, whose steps are its trials."""

    name: str
    state: State
    step: int
    total_steps: int | None
    """None if the run has no plan.json."""
    best: tuple[str, float] | None
    """The metric that decides which checkpoint is the best, as `val/accuracy`, and its best value."""
    written: datetime
    """When it last wrote something."""
    is_sweep: bool = False
    goodput: float | None = None
    """The share of its time that went into steps that count; None if it is not known."""
    damage: str = ""
    """What is damaged, in a line that names the file."""


def list_runs(storage: str, *, quiet: timedelta = _QUIET) -> list[RunSummary]:
    """The runs in `storage`, the most recently written first.

    On an object store, where there are no locks, a run that has written nothing for `quiet` counts as stopped.

    Raises:
        UserError: if there is no such folder, or it cannot be read.
    """
    files, root = open_location(storage)
    try:
        found = files.get_file_info(pyarrow.fs.FileSelector(root))
    except OSError as error:
        raise UserError(f"--storage: {storage} cannot be listed ({first_line(error)})") from error
    names = [info.base_name for info in found if info.type == pyarrow.fs.FileType.Directory]
    # Object stores have high latency, and answer many requests at once.
    with ThreadPoolExecutor(_READERS) as readers:
        runs = readers.map(lambda name: _summary(name, RunDirectory.of(storage, name), quiet), names)
        return sorted((run for run in runs if run), key=lambda run: run.written, reverse=True)


def _summary(name: str, run: RunDirectory, quiet: timedelta) -> RunSummary | None:
    """The summary, or None for a folder that is neither a run nor a sweep."""
    files, root = open_location(run.uri)
    infos = files.get_file_info([f"{root}/{file}" for file in _WRITTEN])
    written = [info.mtime for info in infos if info.mtime is not None]
    if not written:
        return None
    try:
        return _read_summary(name, run, written, quiet)
    except (DamagedFile, StorageError) as error:
        # A run that cannot be read must not hide the others.
        return RunSummary(name, "damaged", 0, None, None, max(written), damage=str(error))


def _read_summary(name: str, run: RunDirectory, written: list[datetime], quiet: timedelta) -> RunSummary | None:
    files, root = open_location(run.uri)
    if (sweep := run.read_json("sweep.json")) is not None:
        return _summary_of_sweep(name, run, sweep, max(written), quiet)
    recipe = run.read_json("recipe.json")
    if recipe is None:
        if not run.exists("plan.json") and not run.exists("checkpoints"):
            return None
        raise DamagedFile(
            f"{run}/recipe.json is not there; restore it from a copy, or give the run's command again, which writes it",
            "recipe.json",
        )
    result, plan = run.read_json("result.json"), run.read_json("plan.json")
    checkpoint = _newest_checkpoint(run, files, root)
    step = max(checkpoint["step"] if checkpoint else 0, _last_step(run))
    is_running = _is_running(run, quiet, max(written))
    return RunSummary(
        name=name,
        state=_state(result, checkpoint, is_running=is_running),
        step=result["steps"] if result else step,
        total_steps=plan["total_steps"] if plan else None,
        best=_best(recipe, checkpoint),
        written=max(written),
        goodput=_goodput(run, result, checkpoint, datetime.now(UTC) if is_running else max(written)),
    )


def _goodput(run: RunDirectory, result: Any, checkpoint: Any, until: datetime) -> float | None:
    if result:
        return result["goodput"]["share"] if "goodput" in result else None
    spent = goodput_of(run, checkpoint=(checkpoint or {}).get("seconds"), until=until.timestamp())
    return None if spent is None else spent.share


def _summary_of_sweep(
    name: str, run: RunDirectory, sweep: dict[str, Any], written: datetime, quiet: timedelta
) -> RunSummary:
    rows = run.read_trials()
    ended = sum(row["state"] != "running" for row in rows)
    values = [float(row["best"]) for row in rows if row["state"] == "finished" and row["best"]]
    best = (min if sweep["mode"] == "min" else max)(values, default=None)
    is_running = _is_running(run, quiet, written)
    state: State = "finished" if ended >= sweep["num_trials"] else "running" if is_running else "stopped"
    return RunSummary(
        name=name,
        state=state,
        step=ended,
        total_steps=sweep["num_trials"],
        best=None if best is None else (sweep["metric"], best),
        written=written,
        is_sweep=True,
    )


def _state(result: Any, checkpoint: Any, *, is_running: bool) -> State:
    if result:
        return "finished"
    if is_running:
        return "running"
    return "stopped" if checkpoint else "never checkpointed"


def _is_running(run: RunDirectory, quiet: timedelta, written: datetime) -> bool:
    """Whether a process holds the run's lock, or, without locks, whether it wrote something within `quiet`."""
    if not run.appends:
        return datetime.now(UTC) - written < quiet
    try:
        with open(run.local_path(".lock")) as lock:
            # A shared lock, so that two listings do not take each other for a run.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _newest_checkpoint(run: RunDirectory, files: pyarrow.fs.FileSystem, root: str) -> dict[str, Any] | None:
    """The state.json of the newest checkpoint that has one."""
    found = files.get_file_info(pyarrow.fs.FileSelector(f"{root}/checkpoints", allow_not_found=True))
    for step in sorted((int(info.base_name) for info in found if info.base_name.isdecimal()), reverse=True):
        with suppress(DamagedFile):
            if state := run.read_json(f"checkpoints/{step}/state.json"):
                return state
    return None


def _last_step(run: RunDirectory) -> int:
    """The step of the last whole line of metrics.jsonl."""
    try:
        tail = run.tail("metrics.jsonl", _TAIL_BYTES)
    except FileNotFoundError:
        return 0
    # The first line may be cut.
    whole = tail if len(tail) < _TAIL_BYTES else tail.partition(b"\n")[2]
    try:
        return max((line["step"] for line in parse_lines([whole], run.uri, "metrics.jsonl")), default=0)
    except DamagedFile:
        # Reading from the first line finds the number of the damaged one.
        return max((line["step"] for line in run.each_metric()), default=0)


def _best(recipe: dict[str, Any], checkpoint: dict[str, Any] | None) -> tuple[str, float] | None:
    if checkpoint is None or checkpoint.get("best") is None:
        return None
    if name := checkpoint["best"].get("metric"):
        return f"val/{name}", checkpoint["best"]["value"]
    # Checkpoints of older versions lack its name.
    try:
        name = recipe_from_json(recipe).metrics().best
    except Exception:
        # The recipe may be gone or have changed; the run is listed all the same.
        name = "best"
    return f"val/{name}", checkpoint["best"]["value"]
