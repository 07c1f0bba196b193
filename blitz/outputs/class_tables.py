"""Accuracies of single classes with intervals, and the confusion matrix, as text and as CSV."""

import csv
import io
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from blitz.data.csv.formulas import escaped
from blitz.outputs.metrics import ClassAccuracy
from blitz.visible import visible

Matrix = Sequence[Sequence[int]]
"""Counts, truth down and prediction across."""

_LONGEST_NAME, _MOST_LISTED = 24, 20


def accuracies(total: ClassAccuracy, classes: Sequence[ClassAccuracy]) -> str:
    """A line for all classes and one for each, or for the 20 with the lowest accuracy."""
    shown, title = [each for each in classes if each.rows], "accuracy"
    if len(shown) > _MOST_LISTED:
        title = f"accuracy, the lowest {_MOST_LISTED} of {len(shown)}"
        shown = sorted(shown, key=lambda each: each.accuracy)[:_MOST_LISTED]
    names = [total.name, *(_brief(each.name) for each in shown)]
    width = max(map(len, [*names, title]))
    lines = [f"{title:{width}}           95 % interval       rows"]
    for name, each in zip(names, [total, *shown], strict=True):
        low, high = each.interval
        lines.append(f"{name:{width}}  {each.accuracy:.4f}  {low:.4f} to {high:.4f}  {each.rows:>6}")
    return "\n".join(lines)


def confusion(classes: Sequence[str], matrix: Matrix, *, columns: int | None = None) -> str:
    """The matrix in a width of `columns`, by default that of the terminal.

    If names do not fit above the counts, numbers replace them; if those do not fit either, only the most frequent
    mistakes are listed.
    """
    columns = columns or shutil.get_terminal_size().columns
    names = [_brief(name) for name in classes]
    digits = max(len(str(count)) for row in matrix for count in row)
    as_named, as_numbered = (max(digits, *(len(head) for head in heads)) + 2 for heads in (names, _numbers(names)))
    if max(map(len, names)) + as_named * len(names) <= columns:
        return _grid(names, names, matrix, as_named)
    numbered = [f"{number} {name}" for number, name in zip(_numbers(names), names, strict=True)]
    if max(map(len, numbered)) + as_numbered * len(names) <= columns:
        return _grid(numbered, _numbers(names), matrix, as_numbered)
    return _mistakes(names, matrix)


def _grid(down: Sequence[str], across: Sequence[str], matrix: Matrix, width: int) -> str:
    first = max(map(len, down))
    lines = [
        "confusion matrix: truth down, prediction across",
        " " * first + "".join(f"{name:>{width}}" for name in across),
    ]
    for name, row in zip(down, matrix, strict=True):
        # A dot for 0, so that the counts stand out.
        lines.append(f"{name:{first}}" + "".join(f"{count or '.':>{width}}" for count in row))
    return "\n".join(lines)


def _mistakes(names: Sequence[str], matrix: Matrix) -> str:
    mistaken = [
        (count, names[truth], names[prediction])
        for truth, row in enumerate(matrix)
        for prediction, count in enumerate(row)
        if count and truth != prediction
    ]
    worst = sorted(mistaken, key=lambda each: -each[0])[:_MOST_LISTED]
    width = max((len(truth) for _, truth, _ in worst), default=0)
    lines = [f"confusion matrix: of {len(names)} classes, the most frequent mistakes"]
    return "\n".join(lines + [f"{count:>6}  {truth:{width}}  predicted as {wrong}" for count, truth, wrong in worst])


def _numbers(names: Sequence[str]) -> list[str]:
    width = len(str(len(names) - 1))
    return [f"{number:>{width}}" for number in range(len(names))]


def _brief(name: str) -> str:
    name = visible(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def accuracies_csv(classes: Sequence[ClassAccuracy]) -> bytes:
    """A row for each class; a class that does not occur has no accuracy."""
    rows = [
        (
            escaped(each.name),
            each.rows,
            each.right,
            each.accuracy if each.rows else "",
            *(each.interval if each.rows else ("", "")),
        )
        for each in classes
    ]
    return _csv([("class", "rows", "right", "accuracy", "low", "high"), *rows])


def confusion_csv(classes: Sequence[str], matrix: Matrix) -> bytes:
    """A row for each true class, a column for each predicted one."""
    names = [*map(escaped, classes)]
    return _csv([("truth", *names), *((name, *row) for name, row in zip(names, matrix, strict=True))])


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
