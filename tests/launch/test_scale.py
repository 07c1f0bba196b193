import socket

import pytest

from blitz.errors import UserError
from blitz.launch.launch import check
from blitz.launch.placement import Placement
from blitz.launch.scale import Node, Scale, workers_for


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
    placement = Placement(Scale(num_workers=num_workers))
    assert placement.in_process is in_process
    assert placement == Placement(Scale(num_workers=num_workers), address=address)


@pytest.mark.parametrize(
    ("scale", "nodes", "count", "cpus_each", "gpus_each"),
    [
        (Scale(), [Node(8, 0)], 7, 1.0, 0),  # one CPU is left for Ray Data
        (Scale(cpus_per_worker=2), [Node(8, 0)], 3, 2.0, 0),
        (Scale(), [Node(32, 4)], 4, 1.0, 1),
        (Scale(), [Node(4, 0), Node(16, 2), Node(16, 2)], 4, 1.0, 1),
        (Scale(use_gpu="no"), [Node(8, 4)], 7, 1.0, 0),
        (Scale(), [Node(4, 0), Node(4, 0)], 7, 1.0, 0),
        (Scale(), [Node(1.5, 0)], 1, 0.75, 0),
        (Scale(), [Node(1, 0)], 1, 0.5, 0),
        (Scale(num_workers=1), [Node(2, 0)], 1, 1.0, 0),
        (Scale(num_workers=2), [Node(2, 0)], 2, 0.6666, 0),
        (Scale(num_workers=3), [Node(2, 0)], 3, 0.5, 0),
        (Scale(num_workers=3), [Node(16, 0)], 3, 1.0, 0),
        (Scale(num_workers=4), [Node(2, 0), Node(2, 0)], 4, 0.6666, 0),
        (Scale(num_workers=1, cpus_per_worker=3), [Node(4, 0)], 1, 3.0, 0),
        (Scale(num_workers=2, use_gpu="yes"), [Node(16, 2)], 2, 1.0, 1),
    ],
)
def test_workers_fit_the_nodes_and_leave_room_for_ray_data(
    scale: Scale, nodes: list[Node], count: int, cpus_each: float, gpus_each: int
) -> None:
    workers = workers_for(scale, nodes)
    assert (workers.count, workers.gpus) == (count, gpus_each)
    assert workers.cpus == pytest.approx(cpus_each)


@pytest.mark.parametrize(
    ("scale", "nodes", "says"),
    [
        (Scale(num_workers=8), [Node(2, 0)], "it can give 7; ask for fewer workers"),
        (Scale(num_workers=2, cpus_per_worker=4), [Node(8, 0)], "it can give 1; ask for fewer"),
        (Scale(num_workers=1, cpus_per_worker=3), [Node(2, 0), Node(2, 0)], "it can give 0; ask for fewer"),
        (Scale(num_workers=4), [Node(64, 2)], "the cluster has 2 GPUs, one a worker, and 64 CPUs.* it can give 2"),
        (Scale(use_gpu="yes"), [Node(8, 0)], "the cluster has no GPU"),
        (Scale(num_workers=1), [Node(0.4, 0)], "it can give 0"),
        (Scale(), [], "it can give 0"),
    ],
)
def test_what_a_cluster_can_never_give_is_refused(scale: Scale, nodes: list[Node], says: str) -> None:
    with pytest.raises(UserError, match=says):
        workers_for(scale, nodes)


@pytest.mark.parametrize(
    ("scale", "count", "room_for"),
    [
        (Scale(num_workers=8), 8, 1),
        (Scale(num_workers=8, cpus_per_worker=4), 8, 0),
        (Scale(num_workers=2, use_gpu="yes"), 2, 0),
        (Scale(min_workers=3, max_workers=8), (3, 8), 2),
        (Scale(num_workers=1), 1, None),
        (Scale(min_workers=2, max_workers=8), (2, 8), None),
    ],
)
def test_a_cluster_that_grows_is_waited_for(scale: Scale, count: int | tuple[int, int], room_for: int | None) -> None:
    workers = workers_for(scale, [Node(2, 0)], grows=True)
    assert (workers.count, workers.room_for) == (count, room_for)


def test_an_address_where_nothing_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(UserError, match="nothing answers there"):
        check(Placement(Scale()))


def test_the_address_of_a_dashboard_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(UserError, match="use `ray job submit"):
        check(Placement(Scale()))


def test_an_address_without_a_number_for_a_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:port")
    with pytest.raises(UserError, match="it must be HOST:PORT or auto"):
        check(Placement(Scale()))


def test_an_address_of_ray_client_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"is ray://127\.0\.0\.1:\d+, and nothing answers there"):
            check(Placement(Scale(num_workers=2), f"ray://127.0.0.1:{free.getsockname()[1]}"))
