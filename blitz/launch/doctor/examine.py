"""All checks, in the order in which a run would meet what they find."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from blitz.data.plan import Datasets
from blitz.launch.doctor.data import fetched
from blitz.launch.doctor.finding import Deadline, Finding, awaited, begun, checked
from blitz.launch.doctor.machine import this_machine, versions
from blitz.launch.doctor.upload import upload
from blitz.launch.scale import Scale
from blitz.runs.directory import RunDirectory
from blitz.runs.open import require_lasting


def examine(
    scale: Scale, storage: str, open_datasets: Callable[[], Datasets], *, seconds: float = 10.0
) -> Iterator[Finding]:
    """Where a run of this `scale` would happen: on the cluster at RAY_ADDRESS, or on this machine alone.

    What has not answered within so many `seconds` is a finding too. No Ray is started.
    """
    deadline = Deadline(seconds)
    # What may have to wait for others begins first.
    datasets, place = begun(open_datasets), RunDirectory.of(storage)
    start = list(checked("scale", lambda: _scale(scale)))
    yield from checked("storage", lambda: _lasting(place))
    yield from start
    address = None if scale.in_process else os.environ.get("RAY_ADDRESS")
    if address and all(finding.level == "ok" for finding in start):
        # Here, because ray takes seconds to import.
        from blitz.launch.doctor.nodes import examine_nodes

        yield from checked("cluster", lambda: examine_nodes(address, scale, place, datasets, deadline))
    else:
        yield from _this_machine_alone(place, datasets, deadline)
    yield from checked("upload", lambda: upload(Path.cwd()))


def _scale(scale: Scale) -> Iterator[Finding]:
    scale.check()
    address = os.environ.get("RAY_ADDRESS")
    if scale.in_process:
        text = "in this process"
    elif address:
        text = f"on the cluster at {address}"
    else:
        text = f"{scale.num_workers} workers on a Ray of this machine"
    yield Finding("ok", "scale", text)


def _lasting(place: RunDirectory) -> Iterator[Finding]:
    require_lasting(place)
    yield from ()


def _this_machine_alone(place: RunDirectory, datasets: Future[Datasets], deadline: Deadline) -> Iterator[Finding]:
    probe, machine = begun(place.probe), begun(this_machine)
    yield from checked("versions", lambda: versions({"this process": awaited(machine, deadline, "this machine")}))
    yield from checked("machine", lambda: awaited(machine, deadline, "this machine").findings)
    yield from checked("storage", lambda: _storage(probe, place, deadline))
    yield from checked("data", lambda: [fetched(*awaited(datasets, deadline, "the data").values())])


def _storage(probe: Future[None], place: RunDirectory, deadline: Deadline) -> Iterator[Finding]:
    awaited(probe, deadline, f"--storage: {place}")
    yield Finding("ok", "storage", f"{place} can be written")
