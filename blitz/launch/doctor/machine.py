"""What one machine has, and what a run may lack there.

Nothing here imports torch or Ray: it runs on every node, where the import would take most of the time.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from blitz.launch.doctor.finding import Finding, checked
from blitz.launch.limits import MIN_OPEN_FILES, RECOMMENDED_OPEN_FILES, open_files_limit, raise_the_limit

_GIB = 1 << 30
_MIN_SHARED_MEMORY = 1 * _GIB
_CUDA_SCRIPT = (
    "import json, torch; "
    "print(json.dumps([torch.version.cuda, [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]]))"
)
_SECONDS_FOR_TORCH = 8.0
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Cuda:
    """The GPUs of a machine as torch sees them."""

    version: str | None
    """The version that torch was built for; None for a build without CUDA."""
    devices: tuple[str, ...]
    """Names of the GPUs that torch finds."""


@dataclass(frozen=True)
class Machine:
    """What a machine, or a node of a cluster, has."""

    python: str
    torch: str
    ray: str
    findings: tuple[Finding, ...]
    """What this machine shows by itself."""


def this_machine(gpus: int = 0) -> Machine:
    """Examine this machine, which has `gpus` GPUs as far as Ray knows."""
    return Machine(
        python=platform.python_version(),
        torch=version("torch"),
        ray=version("ray"),
        findings=(
            *checked("GPUs", lambda: [gpus_finding(gpus, _cuda() if gpus or _NVIDIA_DRIVER.exists() else None)]),
            *shared_memory(_space(Path("/dev/shm"))),
            open_files(open_files_limit()),
            omp_num_threads(os.environ.get("OMP_NUM_THREADS"), cpus=os.cpu_count() or 1),
        ),
    )


def _space(folder: Path) -> tuple[int, int] | None:
    """Total and free bytes; None where there is no such folder."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.total, usage.free


def _cuda() -> Cuda:
    # In a process of its own: Ray hides the GPUs from a task that reserves none, and CUDA stays out of this one.
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    answered = subprocess.run(
        [sys.executable, "-c", _CUDA_SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS_FOR_TORCH,
        check=True,
    )
    cuda_version, devices = json.loads(answered.stdout.splitlines()[-1])
    return Cuda(cuda_version, tuple(devices))


def gpus_finding(count: int, cuda: Cuda | None) -> Finding:
    """Check that torch finds the GPUs that Ray counts, or that the system has a driver for."""
    if cuda is None:
        return Finding("ok", "GPUs", "none")
    if cuda.devices and len(cuda.devices) >= count:
        names = ", ".join(f"{cuda.devices.count(name)} × {name}" for name in dict.fromkeys(cuda.devices))
        return Finding("ok", "GPUs", f"{names}, CUDA {cuda.version}")
    there = f"Ray counts {count}" if count else "the system has a driver for some"
    if cuda.version is None:
        found = "torch is a build without CUDA; install one with it"
    else:
        found = (
            f"torch finds {len(cuda.devices)}; see that nvidia-smi lists them, and that the driver is new enough "
            f"for CUDA {cuda.version}"
        )
    return Finding("error" if count else "warning", "GPUs", f"{there}, and {found}")


def shared_memory(space: tuple[int, int] | None) -> Iterator[Finding]:
    """Check the room for Ray's objects and for communication between GPUs; `space` is total and free bytes."""
    if space is None:
        return
    total, free = space
    if free >= _MIN_SHARED_MEMORY:
        # In powers of two, so that machines which differ a little give equal findings.
        yield Finding("ok", "shared memory", f"/dev/shm has {1 << (free // _GIB).bit_length() - 1} GiB or more free")
        return
    mend = "start the container with --shm-size=8g" if total < _MIN_SHARED_MEMORY else "delete what is left in it"
    text = f"/dev/shm has {free / _GIB:.2f} of {total / _GIB:.2f} GiB free, and Ray turns to the disk; {mend}"
    yield Finding("warning", "shared memory", text)


def open_files(limit: int) -> Finding:
    """Check that Ray can open as many files and connections as it needs."""
    if limit >= RECOMMENDED_OPEN_FILES:
        return Finding("ok", "open files", f"{limit} a process")
    level: Literal["error", "warning"] = "error" if limit < MIN_OPEN_FILES else "warning"
    return Finding(level, "open files", raise_the_limit(limit))


def omp_num_threads(value: str | None, *, cpus: int) -> Finding:
    """Check that OMP_NUM_THREADS is a number of threads that the machine has CPUs for."""
    if value is None:
        return Finding("ok", "OMP_NUM_THREADS", "is not set: Ray sets it to the CPUs of a worker")
    # OpenMP takes a number for each level of nesting.
    numbers = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in numbers):
        text = f"is {value!r}, no number of threads, and ignored; set it to the CPUs of a worker, or unset it"
        return Finding("warning", "OMP_NUM_THREADS", text)
    if int(numbers[0]) > cpus:
        text = f"is {value} on {cpus} CPUs, and threads will wait for each other; set it to the CPUs of a worker"
        return Finding("warning", "OMP_NUM_THREADS", text)
    return Finding("ok", "OMP_NUM_THREADS", f"is {value}")


def versions(machines: Mapping[str, Machine]) -> list[Finding]:
    """Check that Python (but for patch releases), torch and Ray are the same on all machines."""
    findings = []
    kinds: dict[str, Callable[[Machine], str]] = {
        "Python": lambda machine: machine.python.rpartition(".")[0],
        "torch": lambda machine: machine.torch,
        "Ray": lambda machine: machine.ray,
    }
    for kind, version_of in kinds.items():
        where: dict[str, list[str]] = {}
        for name, machine in machines.items():
            where.setdefault(version_of(machine), []).append(name)
        if len(where) > 1:
            found = "; ".join(f"{number} on {', '.join(names)}" for number, names in where.items())
            findings.append(Finding("error", "versions", f"{kind} is {found}: install the same everywhere"))
    if not findings:
        machine = next(iter(machines.values()))
        everywhere = " on every node" if len(machines) > 1 else ""
        text = f"Python {machine.python}, torch {machine.torch}, Ray {machine.ray}{everywhere}"
        findings.append(Finding("ok", "versions", text))
    return findings
