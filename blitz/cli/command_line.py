"""Parsing the command line into typed settings, and turning errors into one line and an exit code."""

import contextlib
import io
import os
import re
import select
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from blitz.errors import RunFailed, Stopped, UserError
from blitz.uris import check_words
from blitz.visible import visible

Settings = TypeVar("Settings")

_KINDS = {"int": "a whole number", "INT": "a whole number", "float": "a number", "FLOAT": "a number"}
SEVERAL_FILES = "several files are one value: a pattern in quotes, as 'shards/*.csv', or a list with commas"
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')

_documented = ConstructorRegistry()


@_documented.struct_rule
def _docstrings_alone(settings: StructTypeInfo) -> StructConstructorSpec | None:
    """Describe flags by docstrings alone: tyro would also show code comments, and its `config` reaches no group."""
    marker = tyro.conf.HelptextFromCommentsOff
    if marker in settings.markers:
        return None
    found: Any = ConstructorRegistry.get_struct_spec(replace(settings, markers=(*settings.markers, marker)))
    return cast(StructConstructorSpec | None, found)


def parse(default: Settings, words: list[str], *, prog: str, description: str) -> Settings:
    """Settings from the command line, over `default`; `--help` prints the flags and exits.

    Raises:
        UserError: for a flag or a value that is not understood, with tyro's reason in one line.
    """
    kind: Any = type(default)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            settings: Settings = tyro.cli(
                kind, args=words, prog=prog, description=description, default=default, registry=_documented
            )
            return settings
    except SystemExit as leaving:
        if not leaving.code:
            raise
    raise UserError(f"{_in_one_line(complaint.getvalue())}; see {prog} --help")


def _in_one_line(box: str) -> str:
    """The message in a box that tyro draws: its first part, and the first flag that it suggests."""
    # The first line is the title; in a terminal without UTF-8 the frame is made of blanks and hyphens.
    inside = [line.strip("│╰╯ ") for line in box.splitlines()[1:]]
    parts = [" ".join(lines).strip() for is_rule, lines in groupby(inside, key=_is_rule) if not is_rule]
    suggestions = [part.split()[3].rstrip(",") for part in parts if part.startswith("Perhaps you meant:")]
    # Our own checks name the flag themselves.
    message = _in_plain_words(re.sub(r"^Error parsing (?!--)\S+: ", "", parts[0].rstrip(".")))
    if re.match(r"Unrecognized options: [^-]\S*\.\w", message):
        return f"{message}; {SEVERAL_FILES}"
    return f"{message}; perhaps {suggestions[0]}" if suggestions else message


def _in_plain_words(message: str) -> str:
    """Replace Python's type names in tyro's message for a value of the wrong type; other messages are unchanged."""
    flag, value, kinds = "Error parsing (?P<flag>--[^:]+): ", "'(?P<value>.*)'", "(?P<kinds>[^ ]+)"
    for pattern in (
        rf"{flag}invalid literal for (?P<kinds>int)\(\) with base 10: {value}",
        rf"{flag}could not convert string to (?P<kinds>float): {value}",
        rf"{flag}no type matching {kinds} could be instantiated from \[{value}\]\. .*",
    ):
        if found := re.fullmatch(pattern, message):
            expected = [_KINDS.get(kind, kind) for kind in re.split(r"[{},|]+", found["kinds"]) if kind]
            return f"{found['flag']} is '{found['value']}'; it must be {' or '.join(expected)}"
    return message


def _is_rule(line: str) -> bool:
    return bool(line) and not line.strip("─-")


def run(main: Callable[[list[str]], None], words: list[str], *, resumable: bool = False) -> NoReturn:
    """Run a command and exit with its code: 0, 2 for a user's mistake, 130 for Ctrl-C, 143 for SIGTERM, 141 if its
    output is closed, as by `| head`, and 1 for everything else.

    `resumable`: an interrupted command resumes if it is given again.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal's encoding lacks must not make the command fail.
            stream.reconfigure(errors="replace")
    with _errors_in_one_line("; the same command continues from the last checkpoint" if resumable else ""):
        try:
            check_words(words)
            main(words)
        finally:
            sys.stdout.flush()
    sys.exit(0)


@contextlib.contextmanager
def _errors_in_one_line(when_interrupted: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        _exit(f"error: {error}", code=2)
    except KeyboardInterrupt:
        _exit(f"interrupted{when_interrupted}", code=130)
    except Stopped as stopped:
        _exit(str(stopped), code=143)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            sys.exit(141)
        with tempfile.NamedTemporaryFile("w", prefix="blitz-", suffix=".log", delete=False) as log:
            log.write(traceback.format_exc())
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
        _exit(f"failed: {_what_and_where(error)}{notes}; the whole trace is in {log.name}", code=1)


def _output_is_closed() -> bool:
    """Whether standard output is closed; if so, redirect what is left of it to /dev/null."""
    standard_output = 1
    poll = select.poll()
    poll.register(standard_output, select.POLLOUT)
    closed = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), standard_output)
    return closed


def _what_and_where(error: Exception) -> str:
    """The error, and the last line of the user's or our own code in its traceback, also in that of a worker."""
    what = str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
    # Ray's errors hold the worker's traceback as text.
    trace = str(error.__cause__) if isinstance(error, RunFailed) else traceback.format_exc()
    libraries = (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), "<")
    frames = [(file, line) for file, line in _FRAME.findall(trace) if not file.startswith(libraries)]
    return f"{what} ({Path(frames[-1][0]).name}:{frames[-1][1]})" if frames else what


def _exit(line: str, *, code: int) -> NoReturn:
    print(visible(" ".join(line.split("\n"))), file=sys.stderr)
    sys.exit(code)
