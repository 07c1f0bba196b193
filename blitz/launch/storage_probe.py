"""Whether every node of a cluster sees the run directory: each reads what the driver writes, and the driver what each
writes. Nothing here imports torch, which takes seconds that a probe can do without.
"""

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ray
from ray.exceptions import GetTimeoutError, TaskUnschedulableError

from blitz.errors import UserError
from blitz.launch.asked import asked
from blitz.training.run_directory import RunDirectory

_SECONDS_TO_ANSWER = 60.0


def check_every_node_sees(run: RunDirectory) -> None:
    """Refuse a storage that a node of the cluster cannot read and write as the driver does.

    Raises:
        UserError: that names the node, what it saw, and how to mend it.
    """
    # A node that cannot reach the storage is to say so in seconds.
    run, folder = replace(run, patient=False), f".probe-{secrets.token_hex(4)}"
    run.write(f"{folder}/driver", b"driver")
    try:
        _ask_every_node(run, folder)
    finally:
        run.delete_folder(folder)


def _ask_every_node(run: RunDirectory, folder: str) -> None:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    with ThreadPoolExecutor(len(nodes)) as threads:
        reasons = threads.map(lambda node: _why_not(node["NodeID"], run, folder), nodes)
        for node, reason in zip(nodes, reasons, strict=True):
            if reason is not None:
                raise UserError(
                    f"{run.flag}: node {node['NodeManagerAddress']} ({node['NodeManagerHostname']}) does not see "
                    f"{run} as the driver does ({reason}); name a folder that all nodes mount, or an object store for "
                    "which all nodes have credentials, such as s3://bucket/runs"
                )


def _why_not(node_id: str, run: RunDirectory, folder: str) -> str | None:
    try:
        reason: str | None = asked(node_id, _answer, run, folder, node_id, seconds=_SECONDS_TO_ANSWER)
    except GetTimeoutError:
        return f"no answer within {_SECONDS_TO_ANSWER:g} s"
    except TaskUnschedulableError:
        # It has gone, and no worker will be there.
        return None
    if reason is None and not run.exists(f"{folder}/{node_id}"):
        return "what it writes there is not seen by others"
    return reason


def _answer(run: RunDirectory, folder: str, node_id: str) -> str | None:
    """Why this node does not see what the driver has written, or cannot write beside it."""
    try:
        run.read(f"{folder}/driver")
        run.write(f"{folder}/{node_id}", b"node")
    except (OSError, UserError) as error:
        return str(error).splitlines()[0]
    return None
