"""Cells of files whose columns have types, as Parquet: numbers as such, and all others as the text of a CSV."""

import json
from typing import Any

import pyarrow
import pyarrow.compute as pc
import pyarrow.types as kinds


def is_numeric(kind: pyarrow.DataType) -> bool:
    """Whether a type is one of numbers."""
    return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind))


def is_readable(kind: pyarrow.DataType) -> bool:
    """Whether cells of a type can be read: all but lists, structures and bytes."""
    if kinds.is_dictionary(kind):
        return is_readable(kind.value_type)
    if isinstance(kind, pyarrow.BaseExtensionType):
        return is_readable(kind.storage_type)
    if kinds.is_interval(kind):
        return False
    return not (kinds.is_nested(kind) or _is_bytes(kind))


def _is_bytes(kind: pyarrow.DataType) -> bool:
    either = (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view, kinds.is_fixed_size_binary)
    return any(is_kind(kind) for is_kind in either)


def cells_of(array: pyarrow.Array) -> pyarrow.Array:
    """The cells of a column: numbers as they are, others as text, empty where missing."""
    if kinds.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array if is_numeric(array.type) else as_text(array)


def as_text(cells: Any) -> Any:
    """Cells as text, as a CSV would hold them."""
    if kinds.is_string(cells.type) and not cells.null_count:
        return cells
    text = pc.cast(cells, pyarrow.string())
    if kinds.is_timestamp(cells.type):
        text = pc.replace_substring_regex(text, r"\.0+([Z+-]|$)", r"\1")
    return pc.fill_null(text, "")


def json_text(value: Any) -> str:
    """A value of JSON as a CSV would hold it; lists and objects as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False)
