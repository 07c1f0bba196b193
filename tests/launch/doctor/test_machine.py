from dataclasses import replace

import pytest

from blitz.launch.doctor.finding import Finding, merged
from blitz.launch.doctor.machine import (
    Cuda,
    gpus_finding,
    omp_num_threads,
    open_files,
    shared_memory,
    this_machine,
    versions,
)

GIB = 1 << 30


def test_this_machine_says_something_of_each_subject() -> None:
    machine = this_machine()
    assert [finding.subject for finding in machine.findings] == [
        *("GPUs", "shared memory", "open files", "OMP_NUM_THREADS")
    ]
    assert versions({"here": machine})[0].level == "ok"


@pytest.mark.parametrize(
    ("value", "level", "says"),
    [
        (None, "ok", "is not set"),
        ("1", "ok", "is 1"),
        ("8", "ok", "is 8"),
        ("4, 2", "ok", "is 4, 2"),
        ("9", "warning", "is 9 on 8 CPUs"),
        ("abc", "warning", "is 'abc', no number of threads"),
        ("", "warning", "is '', no number"),
        ("-1", "warning", "no number"),
        ("0", "warning", "no number"),
        ("2.5", "warning", "no number"),
        ("4,", "warning", "no number"),
    ],
)
def test_omp_num_threads(value: str | None, level: str, says: str) -> None:
    finding = omp_num_threads(value, cpus=8)
    assert finding.level == level
    assert says in finding.text


@pytest.mark.parametrize(("limit", "level"), [(65536, "ok"), (4096, "ok"), (1024, "warning"), (100, "error")])
def test_open_files(limit: int, level: str) -> None:
    assert open_files(limit).level == level


def test_shared_memory_is_too_small_or_too_full() -> None:
    (roomy,) = shared_memory((24 * GIB, 20 * GIB))
    assert (roomy.level, roomy.text) == ("ok", "/dev/shm has 16 GiB or more free")
    (small,) = shared_memory((64 << 20, 64 << 20))
    assert small.level == "warning"
    assert "--shm-size" in small.text
    (full,) = shared_memory((24 * GIB, 1 << 20))
    assert "delete what is left" in full.text
    assert list(shared_memory(None)) == []


@pytest.mark.parametrize(
    ("count", "cuda", "level", "says"),
    [
        (0, None, "ok", "none"),
        (2, Cuda("13.0", ("A", "A")), "ok", "2 × A, CUDA 13.0"),
        (2, Cuda("13.0", ("A",)), "error", "Ray counts 2, and torch finds 1; see that nvidia-smi"),
        (1, Cuda(None, ()), "error", "a build without CUDA"),
        (0, Cuda("13.0", ()), "warning", "the system has a driver for some, and torch finds 0"),
    ],
)
def test_gpus_that_torch_does_not_find(count: int, cuda: Cuda | None, level: str, says: str) -> None:
    finding = gpus_finding(count, cuda)
    assert finding.level == level
    assert says in finding.text


def test_versions_that_differ_are_named_with_their_nodes() -> None:
    one = replace(this_machine(), python="3.11.7", torch="2.15.0", ray="2.60.0")
    patched, older = replace(one, python="3.11.9"), replace(one, python="3.12.1", torch="2.14.0")
    assert [finding.level for finding in versions({"a": one, "b": patched})] == ["ok"]
    findings = versions({"a": one, "b": patched, "c": older})
    assert [(finding.level, finding.text) for finding in findings] == [
        ("error", "Python is 3.11 on a, b; 3.12 on c: install the same everywhere"),
        ("error", "torch is 2.15.0 on a, b; 2.14.0 on c: install the same everywhere"),
    ]


def test_what_several_machines_agree_in_is_one_line() -> None:
    fine, few = Finding("ok", "open files", "many"), Finding("warning", "open files", "few")
    assert list(merged({"a": [fine], "b": [fine]})) == [fine]
    assert [str(finding).split(maxsplit=3)[-1] for finding in merged({"a": [few], "b": [fine], "c": [few]})] == [
        *("on a, c: few", "on b: many")
    ]
