"""Reading the JSON files of a run, and checking their shape before anything relies on it.

Files of a run may be damaged, of another version, or made by somebody else. A shape is a type; `{"key": shape}`, where
a key that ends in ? may be missing and others may be there too; `{str: shape}` for all values of an object; `[shape]`
for all items of a list; a tuple for one of several shapes; or a function that returns whether a value is valid.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from blitz.errors import DamagedFile
from blitz.run_files.checkpoint_names import are_whole

Shape = Any

_LONGEST_LINE = 1 << 24
"""Bytes; the line of an evaluation of a thousand classes has 50 thousand."""
_SHOWN_CHARACTERS = 40
_LARGE = 1 << 62


def _is_int(value: object) -> bool:
    # Larger ones do not fit a float, nor what most JSON readers take.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_int(value)


def _is_time(value: object) -> bool:
    """Seconds since 1970, in years that a date can have."""
    return _is_number(value) and isinstance(value, int | float) and 0 <= value < 253_402_300_800


def _is_picture(value: object) -> bool:
    """Whether a page may show it: the bytes of a picture, and nothing that a browser would fetch."""
    return isinstance(value, str) and value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))


def _is_interval(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _are_checkpoint_files(value: object) -> bool:
    """Sizes by file name; no name may lead elsewhere."""
    return (
        isinstance(value, dict)
        and are_whole(value.keys())
        and all(_is_int(size) and "/" not in name for name, size in value.items())
    )


_EXAMPLE = {
    "row": _is_int,
    "picture?": _is_picture,
    "probability?": _is_number,
    "truth?": (str, {str: _is_number}),
    "prediction?": (str, {str: _is_number}),
    "source?": str,
    "attention?": {"source": [str], "prediction": [str], "weights": [[_is_number]]},
}
_EVALUATION = {
    "split": str,
    "step": _is_int,
    "best?": str,
    "why_best?": str,
    "figures": {"loss": _is_number, str: _is_number},
    "sums": {"rows": _is_int, "confusion?": [[_is_number]]},
    "by_class?": [{"name": str, "rows": _is_int, "right": _is_int, "interval": (type(None), _is_interval)}],
    "threshold?": {"class": str, "probability": _is_number, "cut": _is_int, "confusion": [[_is_int]]},
    "intervals?": {str: _is_interval},
    "examples?": {
        "mistakes?": [_EXAMPLE],
        "random?": [_EXAMPLE],
        "sample?": [{"row": _is_int, "truth": {str: _is_number}, "prediction": {str: _is_number}}],
    },
}


_METRICS = {"step": _is_int, str: (type(None), _is_number)}
_NUMBERS = {int, float}
_VALUES = {str: _is_number}
_BEST = {"step": _is_int, "value": _is_number, "metric?": str, "loss?": _is_number, "metrics?": _VALUES}
_SHAPES: dict[str, Shape] = {
    "recipe.json": {"recipe": str},
    "plan.json": {"total_steps": _is_int},
    "result.json": {
        "steps": _is_int,
        "metrics": _VALUES,
        "last_metrics?": _VALUES,
        "best_metric?": str,
        "patience?": _is_int,
        "best_checkpoint": _is_int,
        "rows_digest": str,
        "stopped_before?": _is_int,
        "goodput?": {"share": _is_number, "seconds": _VALUES},
    },
    "after_evaluation.json": {"step": _is_int, "stopped_before": (type(None), _is_int)},
    "importance.json": {str: _is_number},
    "sweep.json": {
        "initial?": str,
        "metric": str,
        "mode": lambda value: value in ("min", "max"),
        "num_trials": _is_int,
    },
    "trial.json": {
        "number": _is_int,
        "draw": dict,
        "settings": dict,
        "state": lambda value: value in ("running", "finished", "stopped", "failed"),
        "last?": (type(None), _is_number),
        "best?": (type(None), _is_number),
        "step?": _is_int,
        "seconds?": _is_number,
        "error?": str,
        "batch?": _is_int,
        "batch_size?": _is_int,
    },
    "state.json": {
        "step": _is_int,
        "files": _are_checkpoint_files,
        "best?": (type(None), _BEST),
        "sha256?": {str: str},
        "seconds?": _VALUES,
    },
    "metrics.jsonl": _METRICS,
    "events.jsonl": {
        "what": str,
        "time": _is_time,
        "step?": _is_int,
        "world_size?": _is_int,
        "reached?": _is_int,
        "damaged?": [_is_int],
        "device?": str,
        "error?": str,
        "command?": str,
        "seconds?": _VALUES,
        **{f"{time}?": _is_time for time in ("began", "requested", "process", "last_written")},
        "counted?": _VALUES,
        "hang_seconds?": _is_number,
        "account?": str,
        **{f"{account}_seconds?": _is_number for account in ("compute", "data", "evaluation", "checkpoint")},
    },
}
_TRIALS = ("trial", "state", "last", "best", "step", "seconds", "error")
_MENDS = {
    "trial.json": "delete its folder, and the sweep tries its settings again",
    "job.json": "delete the folder that it is in, and all rows are predicted again",
    "state.json": "delete its folder, and an older checkpoint is taken",
    "metrics.jsonl": "delete this line",
    "events.jsonl": "delete this line",
}


def _name_of(path: str) -> str:
    return path.rpartition("/")[2]


def _shape_of(path: str) -> Shape:
    return _EVALUATION if "evaluations" in path.split("/")[:-1] else _SHAPES.get(_name_of(path), {})


def damaged(root: str, path: str, what: str, *, line: int | None = None) -> DamagedFile:
    """The error to raise if a file of the run in `root` does not hold what it should."""
    mend = _MENDS.get(_name_of(path), "delete it, and the command that wrote it writes it again")
    if "evaluations" in path.split("/")[:-1]:
        mend = "delete it, and evaluate again with blitz evaluate"
    where = f"{root}/{path}" if line is None else f"{root}/{path}:{line}"
    return DamagedFile(f"{where} is damaged: {what}; restore it from a copy, or {mend}", path)


def parse_object(data: bytes, root: str, path: str) -> dict[str, Any]:
    """The JSON object in `data`, of the shape that the file `path` of a run has.

    Raises:
        DamagedFile: if it is none.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        what = "it is empty" if not data.strip() else f"it is not JSON ({_first_line(error)})"
        raise damaged(root, path, what) from error
    if wrong := _mismatch(value, _shape_of(path)):
        raise damaged(root, path, wrong)
    found: dict[str, Any] = value
    return found


def parse_lines(chunks: Iterable[bytes], root: str, path: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in the lines of a file, one at a time; torn lines, which are not JSON, are left out.

    Raises:
        DamagedFile: if a line is JSON of another kind.
    """
    shape = _shape_of(path)
    for number, line in enumerate(_whole_lines(chunks, root, path), start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        # A long run has millions of lines, nearly all of numbers only, which are checked at once.
        if not (shape is _METRICS and _are_numbers(value)) and (wrong := _mismatch(value, shape)):
            raise damaged(root, path, wrong, line=number)
        yield value


def _are_numbers(value: Any) -> bool:
    """A fast check that a value is a valid line of metrics.jsonl; False means that a full check is needed."""
    return (
        type(value) is dict
        and type(value.get("step")) is int
        and set(map(type, value.values())) <= _NUMBERS
        and all(-_LARGE < one < _LARGE for one in value.values())
    )


def _whole_lines(chunks: Iterable[bytes], root: str, path: str) -> Iterator[bytes]:
    """Lines without their ends; what follows the last end is left out."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > _LONGEST_LINE:
            raise damaged(root, path, f"it has a line of more than {_LONGEST_LINE >> 20} MiB")


def parse_trials(data: bytes, root: str) -> list[dict[str, str]]:
    """The rows of trials.csv.

    Raises:
        DamagedFile: if it is no such table.
    """
    mend = "the same sweep command writes it again"
    try:
        table = csv.DictReader(data.decode().splitlines(), strict=True)
        rows = list(table)
        names = table.fieldnames or []
        if missing := [name for name in _TRIALS if name not in names]:
            raise ValueError(f"it has no column {missing[0]}")
        for row in rows:
            if None in row or None in row.values():
                raise ValueError("its rows are not equally long")
            int(row["trial"])
            _ = row["best"] and float(row["best"])
    except (ValueError, csv.Error) as error:
        raise damaged(root, "trials.csv", f"{_first_line(error)}; {mend}") from error
    return rows


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _mismatch(value: Any, shape: Shape, name: str = "it") -> str:
    """What is wrong with a value; empty if it is valid."""
    if isinstance(shape, dict):
        return _object_mismatch(value, shape, name)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _wrong(name, value, "a list")
        return next((wrong for one in value if (wrong := _mismatch(one, shape[0], f"an item of {name}"))), "")
    if isinstance(shape, tuple):
        found = [_mismatch(value, one, name) for one in shape]
        return found[-1] if all(found) else ""
    is_right = isinstance(value, shape) if isinstance(shape, type) else shape(value)
    return "" if is_right else _wrong(name, value, "another kind of value")


def _object_mismatch(value: Any, shape: Mapping[Any, Shape], name: str) -> str:
    if not isinstance(value, dict):
        return _wrong(name, value, "a JSON object")
    for key, inner in shape.items():
        if key is str:
            continue
        plain = key.removesuffix("?")
        if plain in value:
            if wrong := _mismatch(value[plain], inner, f"'{plain}'"):
                return wrong
        elif plain == key:
            return f"{name} has no '{key}'"
    if (every := shape.get(str)) is not None:
        for key, one in value.items():
            if key not in shape and (wrong := _mismatch(one, every, f"'{key}'")):
                return wrong
    return ""


def _wrong(name: str, value: Any, expected: str) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):
        text = type(value).__name__
    text = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return f"{name} is {text}, where {expected} is expected"
