"""Runs commands of `jobs` in forked children of one process that has imported everything: no command waits for imports.

A forked command is the module itself, run as `python -m` does, in its own session and folder. Some are run as whole
processes instead, so that nothing depends on the fork.
"""

import contextlib
import importlib
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

_TRACE = re.compile(r"Traceback \(most recent call last\)")
_INVALID_EXIT = "exit code"
_FORK = multiprocessing.get_context("fork")

MODULES = [f"jobs.{name}" for name in ("prepare", "train", "predict", "evaluate", "export", "report", "runs")]
ANSWERS = (0, 2)
"""Exit codes that a command may have: done, and refused in one line."""


class Find(Exception):
    """A failure that a case found: a short `kind` to count by, and the observation."""

    def __init__(self, kind: str, seen: str) -> None:
        super().__init__(f"{kind}: {seen}")
        self.kind = kind


def expect(holds: bool, kind: str, seen: str) -> None:
    """Raise a find unless a condition holds."""
    if not holds:
        raise Find(kind, seen)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"{' '.join(map(repr, self.words))} -> {self.code}: {self.err.strip()[-600:]}"

    @property
    def printed(self) -> str:
        """Everything that it printed."""
        return self.out + self.err


@dataclass
class Started:
    """A command that runs: `end` waits for it."""

    words: tuple[str, ...]
    process: Any
    folder: Path
    log: Path
    limit_s: float
    began: float = field(default_factory=time.monotonic)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self, codes: tuple[int, ...] = ANSWERS) -> Done:
        """Wait for the end.

        Raises:
            Find: for a hang, a traceback, a crash, processes left behind, or an exit code that is not among `codes`.
        """
        left = max(0.1, self.began + self.limit_s - time.monotonic())
        code = self._code(left)
        if code is None:
            _kill_group(self.process.pid)
            self._code(10)
            raise Find("hang", f"{' '.join(self.words)} did not end within {self.limit_s:.0f} s")
        done = Done(self.words, code, _text(self.log.with_suffix(".out")), _text(self.log.with_suffix(".err")))
        if code not in codes:
            kind = "traceback" if code == 1 or _TRACE.search(done.err) else _INVALID_EXIT
            raise Find(kind, str(done))
        expect(not _TRACE.search(done.printed), "traceback", str(done))
        expect(code != 2 or _one_line(done.err), "refusal is not one line", str(done))
        if not _group_ends(self.process.pid):
            _kill_group(self.process.pid)
            raise Find("left processes", str(done))
        return done

    def _code(self, timeout_s: float) -> int | None:
        if isinstance(self.process, subprocess.Popen):
            try:
                return self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return None
        self.process.join(timeout_s)
        code: int | None = self.process.exitcode
        return code


class Commands:
    """Starts commands; `whole` makes them processes of their own rather than forks."""

    def __init__(self, limit_s: float = 120.0) -> None:
        self.limit_s = limit_s
        self.whole = False
        self.started = 0
        self._running: list[Started] = []
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        # A shell's background job ignores Ctrl-C, and so would the commands that are to be interrupted.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name in MODULES:
            importlib.import_module(name)

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.clear()

    def clear(self) -> None:
        """End whatever still runs of a case."""
        for one in self._running:
            if one._code(0) is None:
                _kill_group(one.process.pid)
                one._code(10)
        self._running = []

    def import_what_it_does(self, folder: Path, *words: str) -> None:
        """Run a command, and import here what it imported on the way: later forks have it."""
        names = folder / "imported"
        started = self._fork(folder, words, names)
        started.end()
        for name in names.read_text().split():
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)

    def run(self, folder: Path, *words: str, codes: tuple[int, ...] = ANSWERS) -> Done:
        """Run a command in a folder to its end: `run(folder, "predict", "run", "in.csv", "out.csv")`."""
        return self.start(folder, *words).end(codes)

    def start(self, folder: Path, *words: str) -> Started:
        """Start a command in a folder."""
        started = self._spawn(folder, words) if self.whole else self._fork(folder, words)
        self._running.append(started)
        return started

    def _log(self, folder: Path) -> Path:
        self.started += 1
        logs = folder.with_name(f"{folder.name}.log")
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "tmp").mkdir(exist_ok=True)
        return logs / str(self.started)

    def _fork(self, folder: Path, words: tuple[str, ...], names: Path | None = None) -> Started:
        log = self._log(folder)
        sys.stdout.flush()
        process = _FORK.Process(target=_command, args=(folder, words, log, names))
        process.start()
        return Started(words, process, folder, log, self.limit_s)

    def _spawn(self, folder: Path, words: tuple[str, ...]) -> Started:
        log = self._log(folder)
        with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", f"jobs.{words[0]}", *words[1:]],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, "TMPDIR": str(log.parent / "tmp"), "PYTHONPATH": _ROOT},
            )
        return Started(words, process, folder, log, self.limit_s)


_ROOT = str(Path(__file__).resolve().parents[2])


def _command(folder: Path, words: tuple[str, ...], log: Path, names: Path | None) -> NoReturn:
    """The forked child: runs the module, as `python -m` would."""
    os.setsid()
    os.chdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(log.parent / "tmp")
    for number, ending in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(log.with_suffix(ending), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    module = f"jobs.{words[0]}"
    sys.argv = [module, *words[1:]]
    before = set(sys.modules)
    with warnings.catch_warnings():
        # runpy warns that jobs.report was imported already, by jobs.train.
        warnings.filterwarnings("ignore", message=".*found in sys.modules.*")
        try:
            runpy.run_module(module, run_name="__main__")
        finally:
            sys.stdout.flush()
            if names is not None:
                names.write_text("\n".join(sorted(set(sys.modules) - before)))
    sys.exit(0)


def _text(file: Path) -> str:
    return file.read_text("utf-8", "replace") if file.exists() else ""


def _one_line(err: str) -> bool:
    """Whether the output ends with one line that starts with `error:`; progress may precede it."""
    lines = [line for line in err.strip().splitlines() if line.strip()]
    return bool(lines) and lines[-1].lstrip("\r").startswith("error:")


def _group_ends(group: int, within_s: float = 3.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return True
        time.sleep(0.02)
    return False


def _kill_group(group: int | None) -> None:
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
