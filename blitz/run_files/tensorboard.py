"""TensorBoard event files: the content of metrics.jsonl as scalars.

Each start of a run has its own file, named by the step that it starts after, so that they sort. A file is a sequence of
records: its length, a checksum of that, a protocol buffer and a checksum of it, in the format of TFRecord.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from blitz.run_files.directory import RunDirectory

_PREFIX = "events.out.tfevents."
_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
_NO_SCALARS = ("step", "epoch")


def begin_event_file(run: RunDirectory, step: int, *, time_s: float) -> str:
    """Delete the events after `step` from the files of a run, and create a new file; returns its name."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    for name in run.names():
        if name.startswith(_PREFIX):
            _cut(run, name, step)
    name = f"{_PREFIX}{step:012}.blitz"
    # The second event makes a running TensorBoard drop what came after `step`.
    restart = SessionLog(status=SessionLog.START)
    events = (
        Event(wall_time=time_s, file_version="brain.Event:2"),
        Event(wall_time=time_s, step=step + 1, session_log=restart),
    )
    run.write(name, b"".join(_record(event.SerializeToString()) for event in events))
    return name


def event_record(line: Mapping[str, Any], *, time_s: float) -> bytes:
    """A line of metrics.jsonl as a record; names without a part before a slash get `train/`."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=name if "/" in name else f"train/{name}", simple_value=value)
        for name, value in line.items()
        if name not in _NO_SCALARS
    ]
    event = Event(wall_time=time_s, step=line["step"], summary=Summary(value=values))
    return _record(event.SerializeToString())


def _cut(run: RunDirectory, name: str, step: int) -> None:
    data = run.read(name)
    kept = b"".join(record for record, event in _records(data) if _is_until(event, step))
    if kept != data:
        run.write(name, kept)


def _is_until(event: bytes, step: int) -> bool:
    """Whether an event is not after `step`; one that is damaged is left out, as metrics.jsonl holds the same."""
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    try:
        return bool(Event.FromString(event).step <= step)
    except DecodeError:
        return False


def _record(event: bytes) -> bytes:
    from tensorboardX.record_writer import masked_crc32c

    length = _LENGTH.pack(len(event))
    return length + _CHECKSUM.pack(masked_crc32c(length)) + event + _CHECKSUM.pack(masked_crc32c(event))


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each whole record, and the event in it; one that was cut off and all that follows a wrong length are left out."""
    from tensorboardX.record_writer import masked_crc32c

    start = 0
    while start + _LENGTH.size + _CHECKSUM.size <= len(data):
        first = start + _LENGTH.size + _CHECKSUM.size
        if _CHECKSUM.unpack_from(data, start + _LENGTH.size)[0] != masked_crc32c(data[start : start + _LENGTH.size]):
            return
        stop = first + _LENGTH.unpack_from(data, start)[0]
        if stop + _CHECKSUM.size > len(data):
            return
        yield data[start : stop + _CHECKSUM.size], data[first:stop]
        start = stop + _CHECKSUM.size
