"""Cells that a spreadsheet would take for a formula, which can run commands: `=cmd|' /C calc'!A0`.

See OWASP, "CSV Injection".
"""

import re

_BEGINS = frozenset("=+-@\t\r\n＝＋－＠")
_NUMBER = re.compile(r"[+-]?[\d.,]+([eE][+-]?\d+)?%?")


def escaped(cell: str) -> str:
    """The cell with an apostrophe before it if it begins as a formula does; numbers such as -1.5 stay as they are."""
    return f"'{cell}" if _is_formula(cell) else cell


def unescaped(cell: str) -> str:
    """The cell that `escaped` was given."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    # Apostrophes that stand there already count, so that `unescaped` gives them back.
    bare = cell.lstrip("'")
    return len(bare) > 1 and bare[0] in _BEGINS and not _NUMBER.fullmatch(bare)
