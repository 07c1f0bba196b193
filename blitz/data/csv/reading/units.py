"""Currency and percent signs in the cells of a number column."""

from collections.abc import Mapping
from typing import Literal

import pyarrow
import pyarrow.compute as pc

Unit = Literal["", "currency", "percent"]
"""The kinds of sign beside the numbers of a column."""

UNITS: tuple[Unit, ...] = ("currency", "percent")

_CURRENCY = r"(?:[$€£¥₹]|(?i:usd|eur|gbp|chf))"


REPLACEMENTS: Mapping[Unit, tuple[tuple[str, str], ...]] = {
    "": (),
    "percent": ((r"([0-9.,])\s*%\s*$", r"\1"),),
    "currency": (
        # Accountants write negative amounts in parentheses.
        (rf"^\s*\((\s*{_CURRENCY}?\s*[0-9][^()]*)\)\s*$", r"-\1"),
        (rf"^\s*([+-]?)\s*{_CURRENCY}\s*([+-]?[0-9.])", r"\1\2"),
        (rf"([0-9.,])\s*{_CURRENCY}\s*$", r"\1"),
    ),
}
"""What takes the signs of each unit out of a cell: regular expressions and replacements, one after the other."""


def without_unit(cells: pyarrow.StringArray, unit: Unit) -> pyarrow.StringArray:
    """Cells without the sign: `$1,234.00` is `1,234.00`, `($5)` is `-5`, `12.3 %` is `12.3`; others are unchanged."""
    for pattern, replacement in REPLACEMENTS[unit]:
        cells = pc.replace_substring_regex(cells, pattern, replacement)
    return cells
