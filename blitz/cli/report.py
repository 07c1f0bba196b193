"""Write a page about a run, several runs side by side, or a sweep, from the files in their directories.

    blitz report RUN [RUN …] [flags]

The page is one file that needs no network: report.html in the run directory, or comparison.html here for several runs.
"""

import sys

from blitz.api.write_report import ReportSettings, write_report
from blitz.cli.command_line import parse
from blitz.errors import require
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import note_on_files

PROG = "blitz report"


def main(words: list[str]) -> None:
    """The command `report`."""
    if words[:1] in (["-h"], ["--help"]):
        words = ["--help"]
    names = [word for word in words if not word.startswith("-")]
    names = names[: next((index for index, word in enumerate(words) if word.startswith("-")), len(words))]
    settings = parse(ReportSettings(), words[len(names) :], prog=PROG, description=__doc__ or "")
    require(bool(names), f"name a run first: {PROG} RUN [RUN …] [flags]")
    runs = [RunDirectory.find(name) for name in names]
    for written in write_report(runs, settings):
        print(written)
    for note in filter(None, map(note_on_files, runs)):
        print(note, file=sys.stderr)
