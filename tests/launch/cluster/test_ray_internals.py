"""What is used of Ray's private modules: a failure here names the function that a new version of Ray broke."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.exceptions
from ray.data import DataContext
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

import blitz
from blitz.launch.cluster import ray_internals
from tests.waiting import wait_until

PRIVATE = re.compile(r"\b_private\b|\b_internal\b|\b_raylet\b|internal_kv")


def test_private_modules_of_ray_are_used_in_one_file_only() -> None:
    folder = Path(blitz.__file__).parent
    using = [file.name for file in folder.rglob("*.py") if PRIVATE.search(file.read_text())]
    assert using == ["ray_internals.py"]


def test_address_of_local_cluster() -> None:
    try:
        address = ray_internals.address_of_local_cluster()
    except ConnectionError:
        return  # None runs on this machine, or more than one.
    assert re.fullmatch(r"[\w.-]+:\d+", address)


def test_silence_node_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray._private.worker, "_worker_logs_enabled", True)
    ray_internals.silence_node_messages()
    assert ray._private.worker._worker_logs_enabled is False


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_node_types_of_a_cluster_without_types_are_named_after_the_nodes() -> None:
    types = wait_until(ray_internals.node_types)
    assert [name for node, name in types] == [f"node_{node}" for node, name in types]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_a_note_is_taken_once() -> None:
    ray_internals.leave_note("name", "text")
    assert ray_internals.take_note("name") == "text"
    assert ray_internals.take_note("name") is None


@pytest.mark.parametrize(
    ("private", "left_out"),
    [(True, {"DatasetsCallback", "PlacementGroupCleanerCallback"}), (False, {"DatasetsCallback"})],
)
def test_lean_trainer(private: bool, left_out: set[str]) -> None:
    lean: Any = ray_internals.lean_trainer(print, private_cluster=private)
    rays: Any = TorchTrainer(print)
    assert _names(rays._create_default_callbacks()) - _names(lean._create_default_callbacks()) == left_out


def _names(callbacks: list[Any]) -> set[str]:
    return {type(one).__name__ for one in callbacks}


def test_pausing_callback() -> None:
    context = DataContext.get_current().copy()
    callback: Any = ray_internals.pausing_callback(0.02)
    context.custom_execution_callback_classes = [callback]
    assert callback in context.execution_callback_classes
    pauses, began = callback(), time.monotonic()
    for _ in range(6):
        pauses.on_execution_step(None)
    # The first step follows no other.
    assert time.monotonic() - began > 5 * 0.019


@pytest.mark.parametrize("wrap", [WorkerHealthCheckFailedError], ids=["health check"])
def test_wrapped_exception(wrap: Any) -> None:
    cause = ValueError("why")
    assert ray_internals.wrapped_exception(wrap("it failed", cause)) is cause
    assert ray_internals.wrapped_exception(cause) is None


def test_walk_upload(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("left_out\n")
    for name in ("left_out", "kept"):
        (tmp_path / name).write_text("")
    visited: list[Path] = []
    ray_internals.walk_upload(tmp_path, visited.append)
    assert tmp_path / "kept" in visited
    assert tmp_path / "left_out" not in visited
