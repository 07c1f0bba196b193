import socket

import pytest

from blitz.errors import UserError
from blitz.launch.scale import Scale, workers_for


@pytest.mark.parametrize(
    ("num_workers", "address", "in_process"),
    [("auto", None, True), ("auto", "10.0.0.1:6379", False), (0, "10.0.0.1:6379", True), (2, None, False)],
)
def test_auto_is_this_process_unless_a_cluster_is_addressed(
    num_workers: int, address: str | None, in_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert Scale(num_workers=num_workers).in_process is in_process


@pytest.mark.parametrize(
    ("scale", "cpus", "gpus", "count", "cpus_each", "gpus_each"),
    [
        (Scale(), 8, 0, 7, 1.0, 0),  # one CPU is left for Ray Data
        (Scale(cpus_per_worker=2), 8, 0, 3, 2.0, 0),
        (Scale(), 32, 4, 4, 1.0, 1),
        (Scale(use_gpu="no"), 8, 4, 7, 1.0, 0),
        (Scale(), 1.5, 0, 1, 0.5, 0),
        (Scale(num_workers=2), 2, 0, 2, 0.5, 0),
        (Scale(num_workers=3), 2, 0, 3, 1 / 3, 0),
        (Scale(num_workers=3), 16, 0, 3, 1.0, 0),
        (Scale(num_workers=2, use_gpu="yes"), 16, 2, 2, 1.0, 1),
    ],
)
def test_workers_leave_room_for_ray_data(
    scale: Scale, cpus: float, gpus: float, count: int, cpus_each: float, gpus_each: int
) -> None:
    workers = workers_for(scale, cpus=cpus, gpus=gpus)
    assert (workers.count, workers.gpus) == (count, gpus_each)
    assert workers.cpus == pytest.approx(cpus_each)


@pytest.mark.parametrize(
    ("scale", "cpus", "gpus", "says"),
    [
        (Scale(num_workers=5), 2, 0, "it can give 4; ask for fewer workers"),
        (Scale(num_workers=2, cpus_per_worker=4), 8, 0, "it can give 1; ask for fewer"),
        (Scale(num_workers=4), 64, 2, "the cluster has 2 GPUs, one a worker; ask for at most 2"),
        (Scale(use_gpu="yes"), 8, 0, "the cluster has no GPU"),
        (Scale(num_workers=1), 1, 0, "it can give 0"),
    ],
)
def test_what_a_cluster_can_never_give_is_refused(scale: Scale, cpus: float, gpus: float, says: str) -> None:
    with pytest.raises(UserError, match=says):
        workers_for(scale, cpus=cpus, gpus=gpus)


def test_an_address_where_nothing_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(UserError, match="nothing answers there"):
        Scale().check()


def test_the_address_of_a_dashboard_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(UserError, match="use `ray job submit"):
        Scale().check()
