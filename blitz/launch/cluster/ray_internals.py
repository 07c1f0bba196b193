"""Every use of Ray's private modules: a function for each, with the Ray version that it was checked on.

A new version of Ray may move any of them; `tests/launch/cluster/test_ray_internals.py` names the one that broke. Ray is
imported within the functions because some run where nothing else needs it.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def address_of_local_cluster() -> str:
    """HOST:PORT of the cluster that runs on this machine. Checked on Ray 2.60.

    Raises:
        ConnectionError: if there is none, or more than one.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die

    return str(canonicalize_bootstrap_address_or_die("auto"))


@contextmanager
def on_loopback() -> Iterator[None]:
    """A local cluster that is started in this context listens on the loopback interface only. Checked on Ray 2.60.

    Ray has no argument for that: `_node_ip_address="127.0.0.1"` is replaced by the machine's own address. Its variable
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER decides, despite its name on Linux too: with 0 all that a local cluster starts
    listens on loopback, with 1 on all interfaces. A value that the user has set is respected.
    """
    from ray._private import ray_constants

    name, constant = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    is_set = name in os.environ
    os.environ.setdefault(name, "0")
    # Ray has read it already, when it was imported.
    ray_constants.ENABLE_RAY_CLUSTER = os.environ[name].lower() in ("1", "true")
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        if not is_set:
            del os.environ[name]


def through_client() -> bool:
    """Whether this process is connected by Ray Client, from outside the cluster. Checked on Ray 2.60."""
    from ray.util.client import ray as client

    return bool(client.is_connected())


def silence_node_messages() -> None:
    """Keep what nodes report, such as a page for each that is lost, off this terminal. Checked on Ray 2.60.

    Ray has no setting for it; the messages stay in Ray's logs.
    """
    import ray

    ray._private.worker._worker_logs_enabled = False


def node_types() -> list[tuple[str | None, str]]:
    """Id of each node that an autoscaler knows, and its node type. Checked on Ray 2.60."""
    import ray
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.experimental.internal_kv import _internal_kv_get

    # Written by the autoscaler of `ray up` and `ray start`; version 2, which KubeRay may start, does not write it.
    if status := _internal_kv_get(DEBUG_AUTOSCALING_STATUS):
        report = json.loads(status).get("autoscaler_report") or {}
        return list((report.get("node_type_mapping") or {}).items())
    seen = get_cluster_status(ray.get_runtime_context().gcs_address)
    if seen.stats.autoscaler_version in (None, "0"):
        return []
    return [(node.node_id, node.ray_node_type_name) for node in (*seen.active_nodes, *seen.idle_nodes)]


def pausing_callback(seconds: float) -> type:
    """A callback class that lets Ray Data's loop pause, so that it polls its tasks this often. Checked on Ray 2.60.

    The loop waits only for tasks that run. While the workers have enough rows, none does, and the loop would spin:
    three quarters of a core, measured, which two workers on two cores then lack.
    """
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    class Pause(ExecutionCallback):
        def __init__(self) -> None:
            self._polled = 0.0

        def on_execution_step(self, executor: Any) -> None:
            time.sleep(max(0.0, self._polled + seconds - time.monotonic()))
            self._polled = time.monotonic()

    return Pause


def leave_note(name: str, text: str) -> None:
    """Keep a text on the cluster, for any of its processes. Checked on Ray 2.60."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(name, text)


def take_note(name: str) -> str | None:
    """The text that was left under a name, which it then no longer is. Checked on Ray 2.60."""
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get

    text = _internal_kv_get(name)
    if text is None:
        return None
    _internal_kv_del(name)
    return str(text, "utf-8")


def lean_trainer(*args: Any, private_cluster: bool, **kwargs: Any) -> Any:
    """A TorchTrainer that starts no processes which the run does not need. Checked on Ray 2.60.

    Ray Train's `DatasetManager`, for data sets that it is not given, takes 2.4 seconds of CPU time, measured, before
    the workers start and at each restart. `PlacementGroupCleaner` takes 2.9: it frees what a dead controller reserved,
    which the end of a private cluster does as well, and needs the dashboard to see whether the controller lives.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    unused = (DatasetsCallback, PlacementGroupCleanerCallback) if private_cluster else DatasetsCallback

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            every = super()._create_default_callbacks()  # type: ignore[misc]
            return [one for one in every if not isinstance(one, unused)]

    return Trainer(*args, **kwargs)


def wrapped_exception(failure: Exception) -> Exception | None:
    """The exception that one of Ray's carries, one level down; None if it carries none. Checked on Ray 2.60."""
    for name in ("_base_exc", "health_check_failure", "cause"):
        wrapped = getattr(failure, name, None)
        if isinstance(wrapped, Exception):
            return wrapped
    return None


def walk_upload(folder: Path, visit: Callable[[Path], None]) -> None:
    """Call `visit` with each path that `ray job submit --working-dir` uploads from `folder`. Checked on Ray 2.60.

    Ray's own walk, because it decides which ignore files count, and how.
    """
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    silent = logging.Logger("blitz.upload", level=logging.CRITICAL + 1)
    excludes = [_get_excludes(folder, get_runtime_env_default_excludes())]
    _dir_travel(folder, excludes, visit, include_gitignore=True, logger=silent)
