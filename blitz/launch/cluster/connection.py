"""The Ray cluster that a run happens on."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from blitz.errors import UserError


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
    if address == "local":
        # By itself Ray lets its workers give way to whatever else runs on the machine: beside a busy program they
        # would hardly come to a step.
        os.environ.setdefault("RAY_worker_niceness", "0")
    try:
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
