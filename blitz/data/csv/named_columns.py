"""Which cells of a fetched batch are those of a column of the CSV, and what they hold, for people."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from blitz.data.csv.tabular import CsvFit

CellIndex = tuple[str, int]
"""A fetched tensor, by its name, and an index along its second dimension."""


def cell_indices(fit: CsvFit) -> dict[str, tuple[CellIndex, ...]]:
    """The indices of each column of the table: a date has one for each of its numbers."""
    found: dict[str, tuple[CellIndex, ...]] = {}
    for name, count in ({one.name: 1 for one in fit.plain_numbers} | {d.name: len(d.parts) for d in fit.dates}).items():
        first = sum(map(len, found.values()))
        found[name] = tuple(("numbers", first + number) for number in range(count))
    found |= {one.name: (("categories", number),) for number, one in enumerate(fit.categories)}
    return found | {name: (("texts", number),) for number, name in enumerate(fit.texts)}


def cells_of(fit: CsvFit, columns: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """The cells of fetched rows by column: numbers, text, and None where missing; without columns of free text."""
    indices, cells = cell_indices(fit), {}
    for one in fit.plain_numbers:
        ((_, number),) = indices[one.name]
        values = columns["numbers"][:, number].tolist()
        cells[one.name] = [None if math.isnan(value) else value for value in values]
    for date in fit.dates:
        numbers = columns["numbers"][:, [number for _, number in indices[date.name]]].tolist()
        cells[date.name] = [_date(dict(zip(date.parts, row, strict=True))) for row in numbers]
    for category in fit.categories:
        ((_, number),) = indices[category.name]
        values = [None, *category.values, *["another value"] * category.buckets]
        cells[category.name] = [values[code] for code in columns["categories"][:, number].tolist()]
    return cells


def _date(parts: Mapping[Any, float]) -> str | None:
    if any(math.isnan(value) for value in parts.values()):
        return None
    if "elapsed" not in parts:
        return ", ".join(f"{part} {value:g}" for part, value in parts.items())
    text = str(np.datetime64(round(parts["elapsed"] * 86400), "s"))
    return text.removesuffix("T00:00:00").replace("T", " ")
