"""All checks, in the order in which a run would meet the problems."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

from blitz.data.plan import Datasets
from blitz.launch.doctor.data import check_rows
from blitz.launch.doctor.finding import Deadline, Finding, awaited, checked, start
from blitz.launch.doctor.machine import this_machine, versions
from blitz.launch.doctor.upload import code_to_send, upload
from blitz.launch.launch import check
from blitz.launch.placement import Placement
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import require_lasting


def examine(
    placement: Placement,
    storage: str,
    open_datasets: Callable[[], Datasets],
    *,
    sources: Mapping[str, str] = {},
    seconds: float = 10.0,
) -> Iterator[Finding]:
    """Check the cluster of the placement, or this machine alone where it names none; `sources` are the recipe's.

    A check without an answer within `seconds` is a finding too. No Ray is started.
    """
    deadline = Deadline(seconds)
    # What may have to wait starts first.
    datasets, directory = start(open_datasets), RunDirectory.of(storage)
    placed = list(checked("scale", lambda: _placement(placement)))
    yield from checked("storage", lambda: _lasting(directory))
    yield from placed
    address = None if placement.in_process else placement.address
    if address and all(finding.level == "ok" for finding in placed):
        # Imported here because ray takes seconds to import.
        from blitz.launch.doctor.nodes import examine_nodes

        yield from checked("cluster", lambda: examine_nodes(address, placement.scale, directory, datasets, deadline))
    else:
        yield from _this_machine_alone(directory, datasets, deadline)
    yield code_to_send(sources)
    yield from checked("upload", lambda: upload(Path.cwd()))


def _placement(placement: Placement) -> Iterator[Finding]:
    check(placement)
    if placement.in_process:
        text = "in this process"
    elif placement.address:
        text = f"on the cluster at {placement.address}"
    else:
        text = f"{placement.scale.num_workers} workers on a Ray of this machine"
    yield Finding("ok", "scale", text)


def _lasting(directory: RunDirectory) -> Iterator[Finding]:
    require_lasting(directory)
    yield from ()


def _this_machine_alone(directory: RunDirectory, datasets: Future[Datasets], deadline: Deadline) -> Iterator[Finding]:
    probe, machine = start(directory.probe), start(this_machine)
    yield from checked("versions", lambda: versions({"this process": awaited(machine, deadline, "this machine")}))
    yield from checked("machine", lambda: awaited(machine, deadline, "this machine").findings)
    yield from checked("storage", lambda: _storage(probe, directory, deadline))
    yield from checked("data", lambda: [check_rows(*awaited(datasets, deadline, "the data").values())])


def _storage(probe: Future[None], directory: RunDirectory, deadline: Deadline) -> Iterator[Finding]:
    awaited(probe, deadline, f"--storage: {directory}")
    yield Finding("ok", "storage", f"{directory} can be written")
