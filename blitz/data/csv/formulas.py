"""Cells that a spreadsheet would read as a formula, which can run commands: `=cmd|' /C calc'!A0`.

See OWASP, "CSV Injection".
"""

import re

_STARTS = frozenset("=+-@\t\r\n＝＋－＠")
_NUMBER = re.compile(r"[+-]?[\d.,]+([eE][+-]?\d+)?%?")


def escaped(cell: str) -> str:
    """The cell with an apostrophe before it if it starts like a formula; numbers such as -1.5 are unchanged."""
    return f"'{cell}" if _is_formula(cell) else cell


def unescaped(cell: str) -> str:
    """The inverse of `escaped`."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    # Cells with apostrophes of their own are escaped, too, so that `unescaped` restores them.
    bare = cell.lstrip("'")
    return len(bare) > 1 and bare[0] in _STARTS and not _NUMBER.fullmatch(bare)
