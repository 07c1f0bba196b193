"""Make a page of a run, of several runs side by side, or of a sweep, from what lies in their directories alone.

    python -m jobs.report RUN [RUN …] [flags]

The page is one file that needs no network: report.html in the run directory, or of several runs comparison.html here.
"""

import shlex
import time
from dataclasses import dataclass

from blitz.errors import UserError, require
from blitz.report.page import comparison_page, run_page, sweep_page
from blitz.report.record import read_record
from blitz.report.sweep import is_sweep, read_sweep
from blitz.storage import absolute, folder_of
from blitz.training.run_directory import RunDirectory
from jobs.command_line import parse, run

PROG = "python -m jobs.report"
REPORT = "report.html"
_COMPARISON = "comparison.html"


@dataclass(frozen=True)
class ReportSettings:
    """What `jobs.report` is told."""

    out: str | None = None
    """Where to write the page: a path or a URI."""
    png: bool = False
    """Write the main charts as pictures too, beside the page."""


def main(words: list[str]) -> None:
    """Report as the command line says."""
    if words[:1] in (["-h"], ["--help"]):
        words = ["--help"]
    names = [word for word in words if not word.startswith("-")]
    names = names[: next((place for place, word in enumerate(words) if word.startswith("-")), len(words))]
    settings = parse(ReportSettings(), words[len(names) :], prog=PROG, description=__doc__ or "")
    require(bool(names), f"name a run first: {PROG} RUN [RUN …] [flags]")
    for written in report([RunDirectory.find(name) for name in names], settings):
        print(written)


def report(runs: list[RunDirectory], settings: ReportSettings | None = None) -> list[str]:
    """Write the page of a run, of several or of a sweep; the paths of what was written.

    Raises:
        UserError: if one of them is no run, or the page cannot be written.
    """
    settings = settings or ReportSettings()
    if len(runs) > 1:
        page, place = comparison_page([read_record(one) for one in runs]), absolute(_COMPARISON)
    else:
        (one,) = runs
        page = sweep_page(read_sweep(one)) if is_sweep(one) else run_page(read_record(one))
        place = RunDirectory.of(one.uri, REPORT).uri
    place = absolute(settings.out) if settings.out else place
    folder, name = RunDirectory(folder_of(place)), place.partition("?")[0].rpartition("/")[2]
    files = {name: page.html().encode()}
    if settings.png:
        pictures = f"{name.rpartition('.')[0] or name}-pictures"
        files |= {f"{pictures}/{one}": png for one, png in page.pngs().items()}
    try:
        for path, data in files.items():
            folder.write(path, data)
    except OSError as error:
        reason = getattr(error, "reason", "") or str(error).splitlines()[0]
        raise UserError(f"{place} cannot be written ({reason}); name another place with --out") from error
    return [RunDirectory.of(folder.uri, path).uri for path in files]


def report_at_the_end(run: RunDirectory, *, command: str = "") -> str | None:
    """Write the page of what has just ended, and tell where; what is trained does not fail with its report.

    `command` is what was typed for it, if its events do not tell.
    """
    try:
        if command:
            run.add_event({"what": "finished", "time": round(time.time(), 3), "command": command})
        (written,) = report([run])
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"no report was written ({why}); try {PROG} {shlex.quote(str(run))}")
        return None
    return written


if __name__ == "__main__":
    run(main)
