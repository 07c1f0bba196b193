"""Reporting the bad rows that a run leaves out."""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from blitz.data.arrays import MapStyleDataset
from blitz.data.csv.reading.bad_rows import BadRows
from blitz.run_files.directory import RunDirectory


@runtime_checkable
class _LeavesOut(Protocol):
    left_out: BadRows


def list_left_out(
    datasets: Iterable[MapStyleDataset], run: RunDirectory, *, say: Callable[[str], None] = print
) -> None:
    """Add the bad rows that data sets leave out to bad_rows.csv of the run, and print their number for each CSV."""
    found = [dataset.left_out for dataset in datasets if isinstance(dataset, _LeavesOut)]
    # A CSV that gives both training and evaluation rows is reported once, with all its bad rows.
    of_csvs = {bad.csv_name: bad for bad in sorted(found, key=len) if len(bad)}
    for name, bad in of_csvs.items():
        run.add_bad_rows(bad.records())
        rows = "1 bad row is" if len(bad) == 1 else f"{len(bad):,} bad rows are"
        say(f"{name}: {rows} left out, listed in {run}/bad_rows.csv")
