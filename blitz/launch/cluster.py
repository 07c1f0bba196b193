"""The Ray cluster that a run happens on."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
from ray._private import ray_constants

from blitz.errors import UserError

_LOCAL_SETTINGS = {
    # By itself Ray lets its workers give way to whatever else runs on the machine: beside a busy program they would
    # hardly come to a step.
    "RAY_worker_niceness": "0",
    # Of Gloo, which else listens on the address of the host's name.
    "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
}
_LISTENS_OUTSIDE = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
"""Ray's variable, by its name for Windows and macOS but obeyed anywhere: with 0 all that a local cluster starts listens
on the loopback interface only, with 1 on all interfaces, which is Ray's default on Linux."""


@contextmanager
def connected() -> Iterator[None]:
    """Connected to the cluster at RAY_ADDRESS, or to a local one that lives as long as this context.

    Raises:
        UserError: if no cluster answers at RAY_ADDRESS, or none that lets this process in.
    """
    if ray.is_initialized():
        yield
        return
    # Said in full: without an address Ray would take to whatever `ray start` has left running on this machine.
    address = os.environ.get("RAY_ADDRESS") or "local"
    try:
        with _on_loopback() if address == "local" else nullcontext():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise UserError(
            f"RAY_ADDRESS is {address}, and no cluster lets this process in; if there is one, it "
            "may want a token: set RAY_AUTH_MODE=token; if not, start one with `ray start --head`"
        ) from error
    # Ray has no setting for what its nodes have to say, such as a page on each that is lost: it is in Ray's own logs.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Within this context a local cluster is started that no other machine reaches, unless Ray's variable asks for it.

    Ray has no argument for that: `_node_ip_address="127.0.0.1"` is replaced by the machine's own address.
    """
    before, constant = dict(os.environ), ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update({_LISTENS_OUTSIDE: "0", **_LOCAL_SETTINGS, **before})
    # What Ray has read already, when it was imported.
    ray_constants.ENABLE_RAY_CLUSTER = os.environ[_LISTENS_OUTSIDE].lower() in ("1", "true")
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        for name in {_LISTENS_OUTSIDE, *_LOCAL_SETTINGS} - set(before):
            del os.environ[name]
