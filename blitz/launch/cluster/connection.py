"""The connection to a Ray cluster."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from blitz.errors import UserError
from blitz.launch.cluster.ray_internals import on_loopback, silence_node_messages
from blitz.launch.cluster.user_code import shipped
from blitz.launch.scale import Node


@contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Connected to the cluster at `address`, or for None to a local one that lives as long as this context.

    What is sent to the cluster takes the user's modules along. Yields whether the cluster is private: started for this
    context, and ended with it.

    Raises:
        UserError: if no cluster answers there, or none that lets this process in.
    """
    if ray.is_initialized():
        with shipped():
            yield False
        return
    # Explicit: without an address Ray would connect to whatever `ray start` has left running on this machine.
    address = address or "local"
    is_private = address == "local"
    try:
        with _local_settings() if is_private else nullcontext():
            # The dashboard costs 4 seconds of CPU time, and nobody could open it before the run is over.
            _connect(address, **({"include_dashboard": False} if is_private else {}))
    except RuntimeError as error:
        # Ray Client compares versions of Python and Ray.
        raise UserError(f"the cluster's address (RAY_ADDRESS) is {address}: {' '.join(str(error).split())}") from error
    except ConnectionError as error:
        raise UserError(
            f"the cluster's address (RAY_ADDRESS) is {address}, and no cluster lets this process in; if there is one, "
            "it may want a token: set RAY_AUTH_MODE=token; if not, start one with `ray start --head`"
        ) from error
    silence_node_messages()
    try:
        with shipped():
            yield is_private
    finally:
        ray.shutdown()


_TRIES_OF_CLIENT = 4


def _connect(address: str, **options: Any) -> None:
    # Ray Client's server forks a process for each client while its own threads call gRPC, and some of these die at once
    # ("ev_epoll1_linux.cc: Check failed: next_worker->state == KICKED"): 2 of 14, measured on Ray 2.60. It says so
    # after 30 seconds.
    for tries_left in reversed(range(_TRIES_OF_CLIENT if address.startswith("ray://") else 1)):
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        except ConnectionError:
            if not tries_left:
                raise


_LOCAL_SETTINGS = {
    # By default Ray gives its workers a low priority: beside a busy program they would hardly make a step.
    "RAY_worker_niceness": "0",
    # By default Gloo listens on the address of the host's name.
    "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
}


@contextmanager
def _local_settings() -> Iterator[None]:
    """A local cluster that is started in this context has these settings, and no other machine reaches it."""
    with environment(_LOCAL_SETTINGS), on_loopback():
        yield


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment have these values in this context, unless the user has set them."""
    unset = settings.keys() - os.environ.keys()
    os.environ.update({name: settings[name] for name in unset})
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]


def alive_nodes() -> list[Node]:
    """The resources of each node of the connected cluster."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(each.get("CPU", 0), each.get("GPU", 0)) for each in resources]


def on_the_drivers_node() -> NodeAffinitySchedulingStrategy:
    """Schedules an actor on this process's node if possible.

    Soft, because a cluster that has only just got the node does not know it yet.
    """
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
