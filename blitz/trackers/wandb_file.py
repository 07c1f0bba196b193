"""Reads the local files that W&B's client writes offline, to find which steps they hold.

The format is LevelDB's log: seven bytes of header, then blocks of 32 KiB with fragments of records. Each fragment has
a checksum, a length and a type: the whole record, its first, a middle or its last fragment. A record is one of W&B's
protocol buffers.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_MAGIC_BYTES, _BLOCK_BYTES = 7, 32768
_HEADER = struct.Struct("<IHB")
_WHOLE, _LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, without one that is cut off at the end."""
    with path.open("rb") as file:
        position = len(file.read(_MAGIC_BYTES))
        parts = b""
        while True:
            left = _BLOCK_BYTES - position % _BLOCK_BYTES
            if left < _HEADER.size:
                position += len(file.read(left))
                continue
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return
            _, length, kind = _HEADER.unpack(header)
            data = file.read(length)
            if len(data) < length:
                return
            position += _HEADER.size + length
            parts += data
            if kind in (_WHOLE, _LAST):
                yield Record.FromString(parts)
                parts = b""


def history(path: Path) -> Iterator[dict[str, Any]]:
    """The logged rows of a .wandb file, with their step as `_step`."""
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
