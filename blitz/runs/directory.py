"""The run directory: the same for a run in this process or on a cluster, on a local disk, NFS or an object store.

    <storage>/<run>/
      recipe.json            what was asked for, complete
      plan.json              what it comes to: rows, batch size, steps
      metrics.jsonl          one JSON object a line
      events.out.tfevents.*  the same for TensorBoard, a file each start
      events.jsonl           a line each time that the run was started, went on, failed or finished
      logs/                  what each worker of a run on Ray prints and raises, a file each start
      evaluations/           what the best checkpoint's evaluation found, and what jobs.evaluate did
      bad_rows.csv           rows of a CSV that are left out, if there are any
      checkpoints/<step>/    weights.safetensors, optimizer.safetensors, and state.json, which is written last
      pictures/              of its best checkpoint, if its recipe draws one
      result.json            written at the end

A checkpoint is there once its state.json is, and all files that it lists have the sizes that it lists; anything else
is taken for absent. That holds on file systems and object stores alike, which have no rename in common.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.fs

from blitz.data.csv.reading.bad_rows import RECORD_HEADER
from blitz.errors import UserError, first_line, require
from blitz.storage import absolute, is_temporary, joined, locked, name_of, open_place, write_whole


@dataclass(frozen=True)
class RunDirectory:
    """A run's files. `uri` is an absolute path or a URI that `pyarrow.fs` opens, such as s3://bucket/runs/name."""

    uri: str
    patient: bool = False
    """Whether what an object store refuses is tried again for minutes: once it is known to be the right one."""
    flag: str = field(default="--storage", compare=False)
    """What the user gave it by, as messages name it."""

    @classmethod
    def of(cls, storage: str, run: str | None = None) -> "RunDirectory":
        """The directory `run` in `storage`, which may be a relative path or a URI."""
        return cls(absolute(storage) if run is None else joined(storage, run))

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

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part of its path, as `--run` names it."""
        return name_of(self.uri)

    # Files. A relative path names a file of the run.

    def _open(self, path: str) -> tuple[pyarrow.fs.FileSystem, str]:
        files, root = open_place(self.uri, patient=self.patient)
        return files, f"{root}/{path}" if path else root

    def exists(self, path: str) -> bool:
        """Whether the file or directory is there."""
        files, place = self._open(path)
        return bool(files.get_file_info(place).type != pyarrow.fs.FileType.NotFound)

    def names(self, folder: str = "") -> list[str]:
        """Names of the files in it, or in a folder of it."""
        files, place = self._open(folder)
        found = files.get_file_info(pyarrow.fs.FileSelector(place, allow_not_found=True))
        return [info.base_name for info in found if not is_temporary(info.base_name)]

    def paths(self) -> list[str]:
        """Relative paths of all files in it, at any depth."""
        files, root = self._open("")
        found = files.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True, recursive=True))
        whole = (info for info in found if info.type == pyarrow.fs.FileType.File and not is_temporary(info.base_name))
        return [info.path.removeprefix(f"{root}/") for info in whole]

    def read(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            FileNotFoundError: if it is not there.
        """
        files, place = self._open(path)
        # As a file, whose size is known, an object is read in one request.
        with files.open_input_file(place) as stream:
            return bytes(stream.read())

    def write(self, path: str, data: bytes) -> None:
        """Write a file whole: a reader sees what stood there before or all of `data`."""
        write_whole(*self._open(path), data)

    @property
    def appends(self) -> bool:
        """Whether a file can grow without being written anew."""
        return isinstance(self._open("")[0], pyarrow.fs.LocalFileSystem)

    def append(self, path: str, data: bytes) -> None:
        """Add to the end of a file. Where a store cannot append, it is written anew."""
        place = Path(self._open(path)[1])
        if self.appends and place.exists():
            with place.open("ab") as stream:
                stream.write(data)
        else:
            self.write(path, (self.read(path) if self.exists(path) else b"") + data)

    def write_json(self, path: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object whole."""
        self.write(path, (json.dumps(value, indent=2) + "\n").encode())

    def read_json(self, path: str) -> dict[str, Any] | None:
        """A JSON object, or None where there is no such file."""
        try:
            value: dict[str, Any] = json.loads(self.read(path))
        except FileNotFoundError:
            return None
        return value

    def delete(self) -> None:
        """Delete it with all that is in it; it need not be there."""
        files, place = self._open("")
        if self.exists(""):
            files.delete_dir(place)

    def probe(self) -> None:
        """Write and remove a file.

        Raises:
            UserError: if the storage cannot be written.
        """
        try:
            self.write(".probe", b"")
            files, place = self._open(".probe")
            # Another process that probes may have deleted it.
            with suppress(FileNotFoundError):
                files.delete_file(place)
        except OSError as error:
            raise self.refused("written", error) from error

    def refused(self, what: str, error: OSError) -> UserError:
        """What to raise where the storage cannot be read or written."""
        reason = first_line(error)
        mend = "mend it, and the same command goes on" if self.patient else "name another one"
        return UserError(f"{self.flag}: {self.uri} cannot be {what} ({reason}); {mend}")

    def delete_folder(self, path: str) -> None:
        """Delete a folder and what is in it."""
        files, place = self._open(path)
        files.delete_dir(place)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training the same run, where it lies on a disk; a killed process holds no lock.

        Raises:
            UserError: if another one is training it.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locked(joined(self.uri, ".lock")))
            except BlockingIOError:
                raise UserError(f"another process is training {self.uri}; wait for it, or name another --run") from None
            yield

    # Metrics and events.

    def append_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to metrics.jsonl."""
        self.append("metrics.jsonl", _to_lines(lines))

    def write_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl whole."""
        self.write("metrics.jsonl", _to_lines(lines))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that was cut off is left out."""
        return self._read_lines("metrics.jsonl")

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Add to events.jsonl, which tells what happened to the run, also what it was rewound from since."""
        # A full disk or a power cut may have torn the last line: it stays alone.
        is_torn = self.exists("events.jsonl") and not self.read("events.jsonl").endswith(b"\n")
        self.append("events.jsonl", b"\n" * is_torn + _to_lines([event]))

    def events(self) -> list[dict[str, Any]]:
        """The lines of events.jsonl."""
        return self._read_lines("events.jsonl")

    def _read_lines(self, path: str) -> list[dict[str, Any]]:
        if not self.exists(path):
            return []
        whole, _, _ = self.read(path).rpartition(b"\n")
        lines = []
        for line in whole.splitlines():
            # One that was torn in the middle says nothing.
            with suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
        return lines

    def add_bad_rows(self, records: Iterable[str]) -> None:
        """Add records to bad_rows.csv, each once however often it is found."""
        lines = dict.fromkeys([RECORD_HEADER, *self.bad_rows(), *records])
        self.write("bad_rows.csv", "".join(f"{line}\n" for line in lines).encode())

    def bad_rows(self) -> list[str]:
        """The records of bad_rows.csv."""
        return self.read("bad_rows.csv").decode().split("\n")[1:-1] if self.exists("bad_rows.csv") else []

    def rewind(self, step: int) -> int:
        """Leave only what was so at `step`: what came after it is about to be made again. The step that was reached."""
        lines = self.metrics()
        self.write_metrics(line for line in lines if line["step"] <= step)
        evaluation = self.read_json("evaluations/best.json")
        gone = ["result.json", *(["evaluations/best.json"] if evaluation and evaluation["step"] > step else [])]
        for path in filter(self.exists, gone):
            files, place = self._open(path)
            files.delete_file(place)
        return max(step, lines[-1]["step"] if lines else 0)

    # Checkpoints.

    def checkpoint_steps(self) -> list[int]:
        """Steps of all whole checkpoints, oldest first.

        Raises:
            UserError: if the storage cannot be read.
        """
        files, place = self._open("checkpoints")
        try:
            found = files.get_file_info(pyarrow.fs.FileSelector(place, allow_not_found=True))
        except OSError as error:
            raise self.refused("read", error) from error
        steps = (int(info.base_name) for info in found if info.base_name.isdecimal())
        return sorted(step for step in steps if self._checkpoint_state(step) is not None)

    def newest_step(self, most: int) -> int:
        """The step of the newest checkpoint, or 0, but `most` at most."""
        return min(most, max(self.checkpoint_steps(), default=0))

    def checkpoint_step(self, which: Literal["best", "last"] | int) -> int:
        """The step of the best or the newest checkpoint, or `which` itself.

        Raises:
            UserError: if there is no checkpoint yet.
        """
        if isinstance(which, int):
            return which
        steps = self.checkpoint_steps()
        require(bool(steps), f"{self.uri} has no checkpoint yet")
        state = self._checkpoint_state(steps[-1])
        best = state["best"] if state and which == "best" else None
        return int(best["step"]) if best else steps[-1]

    def _checkpoint_state(self, step: int) -> dict[str, Any] | None:
        try:
            state = self.read_json(f"checkpoints/{step}/state.json")
        except json.JSONDecodeError:
            return None
        if state is None:
            return None
        files, place = self._open(f"checkpoints/{step}")
        infos = files.get_file_info([f"{place}/{name}" for name in state["files"]])
        return state if [info.size for info in infos] == list(state["files"].values()) else None

    def write_checkpoint(self, step: int, files: Mapping[str, bytes], state: Mapping[str, Any]) -> None:
        """Write a checkpoint: its files, and last its state."""
        place = f"checkpoints/{step}"
        if self.exists(place):
            self.delete_checkpoint(step)
        for name, data in files.items():
            self.write(f"{place}/{name}", data)
        sizes = {name: len(data) for name, data in files.items()}
        self.write_json(f"{place}/state.json", {**state, "files": sizes})

    def read_checkpoint(self, step: int) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The files and the state of a whole checkpoint.

        Raises:
            UserError: if there is none of that step.
        """
        state = self._checkpoint_state(step)
        if state is None:
            steps = ", ".join(map(str, self.checkpoint_steps())) or "none"
            raise UserError(f"{self.uri} has no whole checkpoint of step {step}; there are: {steps}")
        return {name: self.read(f"checkpoints/{step}/{name}") for name in state["files"]}, state

    def delete_checkpoint(self, step: int) -> None:
        """Delete a checkpoint: first its state.json, so that none is ever half there."""
        files, place = self._open(f"checkpoints/{step}")
        if self.exists(f"checkpoints/{step}/state.json"):
            files.delete_file(f"{place}/state.json")
        self.delete_folder(f"checkpoints/{step}")


def _to_lines(objects: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in objects).encode()
