"""The run directory: the same for a run in this process or on a cluster, on a local disk, NFS or an object store.

    <storage>/<run>/
      recipe.json            all settings of the run
      code/                  the user's files that its recipe consists of, if it does not ship with blitz
      plan.json              what follows from them: rows, batch size, steps
      metrics.jsonl          one JSON object a line
      events.out.tfevents.*  the same for TensorBoard, a file each start
      events.jsonl           one line each time the run was started, resumed, failed or finished
      logs/                  what each worker of a run on Ray prints and raises, a file each start
      evaluations/           the evaluation of the best checkpoint, and those made by blitz evaluate
      after_evaluation.json  the step that the recipe's after_evaluation was last called for, if it has one
      bad_rows.csv           rows of a CSV that are left out, if there are any
      checkpoints/<step>/    weights.safetensors, optimizer.safetensors, and state.json, which is written last; of a
                             sharded model, weights-00001-of-00002.safetensors and so on, one for each rank
      pictures/              pictures of the best checkpoint, if the recipe draws any
      trackers/<name>.json   how much of the run was sent to a tracker
      result.json            written at the end

A checkpoint is there once its state.json is, and all files that it lists have the sizes that it lists; anything else
is treated as absent. That holds on file systems and object stores alike, which have no rename in common. The SHA-256
of each file in state.json shows whether its bytes are those that were written.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from blitz.data.csv.reading.bad_rows import RECORD_HEADER
from blitz.errors import UserError, first_line
from blitz.run_files.checkpoint_files import CheckpointFiles
from blitz.run_files.stored_json import parse_lines, parse_trials
from blitz.storage import joined, locked


@dataclass(frozen=True)
class RunDirectory(CheckpointFiles):
    """A run's files: its checkpoints, metrics and events."""

    @classmethod
    def find(cls, name: str) -> "RunDirectory":
        """The run that a path or a URI leads to; a name alone is also looked for in runs/.

        Raises:
            UserError: if its storage does not answer.
        """
        here = replace(cls.of(name), flag="RUN")
        try:
            found = here.exists("")
        except OSError as error:
            raise UserError(f"{name} cannot be read ({first_line(error)})") from error
        return here if found or "/" in name else replace(here, uri=joined("runs", name))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training the same run, if it lies on a disk; a killed process holds no lock.

        Raises:
            UserError: if another one is training it.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locked(joined(self.uri, ".lock")))
            except BlockingIOError:
                raise UserError(f"another process is training {self.uri}; wait for it, or name another --run") from None
            yield

    def append_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to metrics.jsonl."""
        self.append("metrics.jsonl", _to_lines(lines))

    def write_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl whole."""
        self.write("metrics.jsonl", _to_lines(lines))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that was cut off is left out.

        Raises:
            DamagedFile: if a line holds anything but numbers by name.
        """
        return list(self.each_metric())

    def each_metric(self) -> Iterator[dict[str, Any]]:
        """The same, one line at a time: those of a long run do not fit in memory."""
        return self._read_lines("metrics.jsonl")

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Add to events.jsonl, the history of the run, which a rewind does not shorten."""
        # A full disk or a power cut may have torn the last line: it stays alone.
        is_torn = self.exists("events.jsonl") and not self.read("events.jsonl").endswith(b"\n")
        self.append("events.jsonl", b"\n" * is_torn + _to_lines([event]))

    def events(self) -> list[dict[str, Any]]:
        """The lines of events.jsonl.

        Raises:
            DamagedFile: if one is no event.
        """
        return list(self._read_lines("events.jsonl"))

    def _read_lines(self, path: str) -> Iterator[dict[str, Any]]:
        if self.exists(path):
            yield from parse_lines(self.chunks(path), self.uri, path)

    def add_bad_rows(self, records: Iterable[str]) -> None:
        """Add records to bad_rows.csv, each once."""
        lines = dict.fromkeys([RECORD_HEADER, *self.bad_rows(), *records])
        self.write("bad_rows.csv", "".join(f"{line}\n" for line in lines).encode())

    def bad_rows(self) -> list[str]:
        """The records of bad_rows.csv."""
        if not self.exists("bad_rows.csv"):
            return []
        return self.read("bad_rows.csv").decode(errors="replace").split("\n")[1:-1]

    def rewind(self, step: int) -> int:
        """Delete what was written after `step`, which will be made again; returns the step that was reached."""
        for newer in self.damaged_after(step):
            self.delete_checkpoint(newer)
        lines = self.metrics()
        self.write_metrics(line for line in lines if line["step"] <= step)
        evaluation = self.read_json("evaluations/best.json")
        gone = ["result.json", *(["evaluations/best.json"] if evaluation and evaluation["step"] > step else [])]
        for path in filter(self.exists, gone):
            files, full = self._open(path)
            files.delete_file(full)
        return max(step, lines[-1]["step"] if lines else 0)

    def read_trials(self) -> list[dict[str, str]]:
        """The rows of a sweep's trials.csv.

        Raises:
            DamagedFile: if it is no such table.
        """
        return parse_trials(self.read("trials.csv"), self.uri) if self.exists("trials.csv") else []


def _to_lines(objects: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in objects).encode()
