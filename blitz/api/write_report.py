"""Reports of runs and sweeps, written into their directories."""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

from blitz.errors import UserError, first_line
from blitz.report.page import comparison_page, run_page, sweep_page
from blitz.report.record import read_record
from blitz.report.sweep_page import is_sweep, read_sweep
from blitz.run_files.directory import RunDirectory
from blitz.run_files.folder import Directory
from blitz.storage import absolute, folder_of, name_of

REPORT = "report.html"
_COMPARISON = "comparison.html"


@dataclass(frozen=True)
class ReportSettings:
    """The settings of a report."""

    out: str | None = None
    """The file to write: a path or a URI."""
    png: bool = False
    """Write the main charts as pictures too, beside the page."""


def write_report(runs: list[RunDirectory], settings: ReportSettings | None = None) -> list[str]:
    """Write the page of a run, of several or of a sweep; returns the paths of what was written.

    Raises:
        UserError: if one of them is no run, or the page cannot be written.
    """
    settings = settings or ReportSettings()
    if len(runs) > 1:
        page, path = comparison_page([read_record(one) for one in runs]), absolute(_COMPARISON)
    else:
        (one,) = runs
        page = sweep_page(read_sweep(one)) if is_sweep(one) else run_page(read_record(one))
        path = RunDirectory.of(one.uri, REPORT).uri
    path = absolute(settings.out) if settings.out else path
    folder, name = Directory(folder_of(path)), name_of(path)
    files = {name: page.html().encode()}
    if settings.png:
        pictures = f"{name.rpartition('.')[0] or name}-pictures"
        files |= {f"{pictures}/{one}": png for one, png in page.pngs().items()}
    try:
        for file, data in files.items():
            folder.write(file, data)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({first_line(error)}); name another file with --out") from error
    return [folder.part(path).uri for path in files]


def report_at_the_end(run: RunDirectory, *, command: str = "", say: Callable[[str], None] = print) -> str | None:
    """Write the report of a run or sweep that has just ended; returns its path, or None if it could not be written.

    `command` is the command line, if it is not yet among the events.
    """
    try:
        if command:
            run.add_event({"what": "finished", "time": round(time.time(), 3), "command": command})
        (written,) = write_report([run])
    except Exception as error:
        say(f"no report was written ({first_line(error)}); try blitz report {shlex.quote(str(run))}")
        return None
    return written
