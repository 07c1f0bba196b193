"""Currency and percent signs in the cells of a number column."""

from typing import Literal

import pyarrow
import pyarrow.compute as pc

Unit = Literal["", "currency", "percent"]
"""The kinds of sign beside the numbers of a column."""

UNITS: tuple[Unit, ...] = ("currency", "percent")

_CURRENCY = r"(?:[$€£¥₹]|(?i:usd|eur|gbp|chf))"


def without_unit(cells: pyarrow.StringArray, unit: Unit) -> pyarrow.StringArray:
    """Cells without the sign: `$1,234.00` is `1,234.00`, `($5)` is `-5`, `12.3 %` is `12.3`; others are unchanged."""
    if unit == "percent":
        return pc.replace_substring_regex(cells, r"([0-9.,])\s*%\s*$", r"\1")
    if unit == "currency":
        # Accountants write negative amounts in parentheses.
        cells = pc.replace_substring_regex(cells, rf"^\s*\((\s*{_CURRENCY}?\s*[0-9][^()]*)\)\s*$", r"-\1")
        cells = pc.replace_substring_regex(cells, rf"^\s*([+-]?)\s*{_CURRENCY}\s*([+-]?[0-9.])", r"\1\2")
        return pc.replace_substring_regex(cells, rf"([0-9.,])\s*{_CURRENCY}\s*$", r"\1")
    return cells
