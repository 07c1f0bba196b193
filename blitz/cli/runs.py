"""List the runs and sweeps in a storage, with the state, step, best value and goodput of each.

Goodput is the share of a run's time, since it was first started, that went into steps that count.

blitz runs [--storage URI]
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from blitz.cli.command_line import parse
from blitz.outputs.metrics import format_metric
from blitz.run_files.listing import RunSummary, list_runs

PROG = "blitz runs"


@dataclass(frozen=True)
class RunsSettings:
    """The flags of `blitz runs`."""

    storage: str = "runs"
    """The directory of runs, or a URI such as s3://bucket/runs."""


def main(words: list[str]) -> None:
    """The command `runs`."""
    settings = parse(RunsSettings(), words, prog=PROG, description=__doc__ or "")
    runs, now = list_runs(settings.storage), datetime.now(UTC)
    if not runs:
        print(f"no runs in {settings.storage}")
        return
    rows = [("run", "state", "step", "best", "goodput", "last written"), *(_row(each, now) for each in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    for each in runs:
        if each.damage:
            print(f"{each.name}: {each.damage}")


def _row(summary: RunSummary, now: datetime) -> tuple[str, ...]:
    total = "?" if summary.total_steps is None else str(summary.total_steps)
    best = "" if summary.best is None else f"{summary.best[0]} {format_metric(summary.best[1])}"
    step = f"{summary.step}/{total}{' trials' if summary.is_sweep else ''}"
    if summary.damage:
        step = "?"
    share = "" if summary.goodput is None else f"{summary.goodput:.0%}"
    return summary.name, summary.state, step, best, share, f"{_age(now - summary.written)} ago"


def _age(age: timedelta) -> str:
    """The age in the largest unit of which there are at least two."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
