"""Numbers and settings formatted for people."""

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

_LONGEST, _LONG_NUMBER = 160, 8
_BLOCKS, _PLAIN = "▁▂▃▄▅▆▇█", "_.-~=+*#"


def number(value: float | None) -> str:
    """About four significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def rounded(text: str) -> str:
    """A cell of a table: a long number is rounded, everything else unchanged."""
    try:
        return number(float(text)) if len(text) > _LONG_NUMBER else text
    except ValueError:
        return text


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def shown(value: Any) -> str:
    """A setting, cut if it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def sparkline(values: Sequence[float], *, width: int = 40, plain: bool = False) -> str:
    """A curve in a line of text: means of neighbours, the lowest as ▁; `plain` takes no other characters than ASCII."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    columns = min(width, len(finite))
    edges = [len(finite) * column // columns for column in range(columns + 1)]
    means = [sum(finite[start:stop]) / (stop - start) for start, stop in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    marks = _PLAIN if plain else _BLOCKS
    top = len(marks) - 1
    return "".join(marks[round((mean - low) / (high - low) * top) if high > low else 0] for mean in means)
