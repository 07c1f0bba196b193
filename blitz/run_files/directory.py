"""The run directory: the same for a run in this process or on a cluster, on a local disk, NFS or an object store.

    <storage>/<run>/
      recipe.json            what was asked for, complete
      code/                  the user's files that its recipe consists of, if it does not ship
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
is taken for absent. That holds on file systems and object stores alike, which have no rename in common. Whether the
bytes of a file are those that were written, its SHA-256 in state.json tells.

Nothing outside the directory is read or written on account of what lies in it, such as a symbolic link.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.fs

from blitz.data.csv.reading.bad_rows import RECORD_HEADER
from blitz.errors import StorageError, UserError, first_line
from blitz.run_files.checkpoint_files import CheckpointFiles
from blitz.run_files.contained import require_inside, require_plain_path
from blitz.run_files.stored_json import parse_lines, parse_object, parse_trials
from blitz.storage import absolute, is_temporary, joined, locked, name_of, open_place, write_whole

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RunDirectory(CheckpointFiles):
    """A run's files. `uri` is an absolute path or a URI that `pyarrow.fs` opens, such as s3://bucket/runs/name."""

    uri: str
    patient: bool = False
    """Whether what an object store refuses is tried again for minutes: once it is known to be the right one."""
    flag: str = field(default="--storage", compare=False)
    """What the user gave it by, as messages name it."""
    boundary: str | None = None
    """The directory whose files these are, where this one is a part of it: that of a sweep, for its trials."""

    @classmethod
    def of(cls, storage: str, run: str | None = None) -> "RunDirectory":
        """The directory `run` in `storage`, which may be a relative path or a URI."""
        return cls(absolute(storage) if run is None else joined(storage, run))

    def part(self, path: str) -> "RunDirectory":
        """A directory in this one, such as a trial of a sweep."""
        return replace(self, uri=RunDirectory.of(self.uri, path).uri, boundary=self.boundary or self.uri)

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
        require_plain_path(self.uri, path)
        files, root = open_place(self.uri, patient=self.patient)
        place = f"{root}/{path}" if path else root
        if isinstance(files, pyarrow.fs.LocalFileSystem) and (path or self.boundary):
            require_inside(place, open_place(self.boundary)[1] if self.boundary else root)
        return files, place

    def local_path(self, path: str) -> str:
        """Where a file lies on a local disk."""
        return self._open(path)[1]

    @contextmanager
    def _told(self, what: str, path: str) -> Iterator[None]:
        """What a local disk refuses in this context, in one line; that a file is not there remains as it is."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            # Of an object store, another try may find that it answers again.
            if not self.appends or (what == "read" and isinstance(error, FileNotFoundError)):
                raise
            raise self.refused_file(what, path, error) from error

    def refused_file(self, what: str, path: str, error: OSError) -> StorageError:
        """What to raise where a file of the run cannot be read or written."""
        reason = _reason(error)
        mend = "mend that, and give the same command again"
        return _refusal(f"{self.uri}/{path} cannot be {what} ({reason}); {mend}", reason)

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
        with self._told("read", path), files.open_input_file(place) as stream:
            return bytes(stream.read())

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file's bytes, a mebibyte at a time.

        Raises:
            FileNotFoundError: if it is not there.
        """
        files, place = self._open(path)
        with self._told("read", path), files.open_input_stream(place, compression=None) as stream:
            while data := stream.read(_CHUNK_BYTES):
                yield data

    def tail(self, path: str, most: int) -> bytes:
        """The last bytes of a file, `most` at most.

        Raises:
            FileNotFoundError: if it is not there.
        """
        files, place = self._open(path)
        with self._told("read", path), files.open_input_file(place) as file:
            size = file.size()
            return bytes(file.read_at(min(size, most), max(0, size - most)))

    def write(self, path: str, data: bytes) -> None:
        """Write a file whole: a reader sees what stood there before or all of `data`.

        Raises:
            StorageError: if a disk does not take it.
        """
        with self._told("written", path):
            write_whole(*self._open(path), data)

    @property
    def appends(self) -> bool:
        """Whether a file can grow without being written anew."""
        return isinstance(self._open("")[0], pyarrow.fs.LocalFileSystem)

    def append(self, path: str, data: bytes) -> None:
        """Add to the end of a file. Where a store cannot append, it is written anew.

        Raises:
            StorageError: if a disk does not take it.
        """
        place = Path(self._open(path)[1])
        if self.appends and place.exists():
            with self._told("written", path), place.open("ab") as stream:
                stream.write(data)
        else:
            self.write(path, (self.read(path) if self.exists(path) else b"") + data)

    def write_json(self, path: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object whole."""
        self.write(path, (json.dumps(value, indent=2) + "\n").encode())

    def read_json(self, path: str) -> dict[str, Any] | None:
        """A JSON object, or None where there is no such file.

        Raises:
            DamagedFile: if the file is not JSON of the shape that a file of this name has.
        """
        try:
            data = self.read(path)
        except FileNotFoundError:
            return None
        return parse_object(data, self.uri, path)

    def read_trials(self) -> list[dict[str, str]]:
        """The rows of a sweep's trials.csv.

        Raises:
            DamagedFile: if it is no such table.
        """
        return parse_trials(self.read("trials.csv"), self.uri) if self.exists("trials.csv") else []

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

    def refused(self, what: str, error: OSError) -> StorageError:
        """What to raise where the storage cannot be read or written."""
        if isinstance(error, StorageError) and not error.reason:
            return error
        reason = _reason(error)
        mend = "mend it, and the same command goes on" if self.patient else "name another one"
        return _refusal(f"{self.flag}: {self.uri} cannot be {what} ({reason}); {mend}", reason)

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
        """The lines of metrics.jsonl; a last line that was cut off is left out.

        Raises:
            DamagedFile: if a line holds something else than numbers by their names.
        """
        return list(self.each_metric())

    def each_metric(self) -> Iterator[dict[str, Any]]:
        """The same, one line at a time: of a long run they are too many to hold."""
        return self._read_lines("metrics.jsonl")

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Add to events.jsonl, which tells what happened to the run, also what it was rewound from since."""
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
        """Add records to bad_rows.csv, each once however often it is found."""
        lines = dict.fromkeys([RECORD_HEADER, *self.bad_rows(), *records])
        self.write("bad_rows.csv", "".join(f"{line}\n" for line in lines).encode())

    def bad_rows(self) -> list[str]:
        """The records of bad_rows.csv."""
        if not self.exists("bad_rows.csv"):
            return []
        return self.read("bad_rows.csv").decode(errors="replace").split("\n")[1:-1]

    def rewind(self, step: int) -> int:
        """Leave only what was so at `step`: what came after it is about to be made again. The step that was reached."""
        for newer in self.damaged_after(step):
            self.delete_checkpoint(newer)
        lines = self.metrics()
        self.write_metrics(line for line in lines if line["step"] <= step)
        evaluation = self.read_json("evaluations/best.json")
        gone = ["result.json", *(["evaluations/best.json"] if evaluation and evaluation["step"] > step else [])]
        for path in filter(self.exists, gone):
            files, place = self._open(path)
            files.delete_file(place)
        return max(step, lines[-1]["step"] if lines else 0)


def _reason(error: OSError) -> str:
    if isinstance(error, StorageError) and error.reason:
        return error.reason
    return (str(error).splitlines() or [type(error).__name__])[0]


def _refusal(message: str, reason: str) -> StorageError:
    error = StorageError(message)
    error.reason = reason
    return error


def _to_lines(objects: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in objects).encode()
