"""Text of others, such as the names of classes and columns, as a terminal and a page may show it."""

import unicodedata
from collections.abc import Mapping
from typing import Any

# They join letters and emojis, and move nothing else.
_JOINERS = "\u200c\u200d"


def visible(text: str) -> str:
    """`text` with what would break a line, move the cursor or turn the direction of writing as Python escapes it."""
    if text.isprintable():
        return text
    return "".join(char if _is_shown(char) else char.encode("unicode_escape").decode() for char in text)


def _is_shown(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def all_visible(value: Any) -> Any:
    """A JSON value with all of its text made visible, including the names of fields."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(name): all_visible(one) for name, one in value.items()}
    return [all_visible(one) for one in value] if isinstance(value, list) else value
