"""Check that every node of a cluster shares the run directory: each reads what the driver wrote, and vice versa.

Nothing here imports torch, which would cost the probe seconds.
"""

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ray
from ray.exceptions import GetTimeoutError, TaskUnschedulableError

from blitz.errors import UserError, first_line
from blitz.launch.cluster.node_task import call_on_node
from blitz.run_files.directory import RunDirectory

_SECONDS_TO_ANSWER = 60.0


def check_every_node_sees(run: RunDirectory) -> None:
    """Refuse a storage that a node of the cluster cannot read and write as the driver does.

    Raises:
        UserError: which names the node, what failed there, and how to mend it.
    """
    # A node that cannot reach the storage should fail within seconds.
    run, folder = replace(run, patient=False), f".probe-{secrets.token_hex(4)}"
    run.write(f"{folder}/driver", b"driver")
    try:
        _probe_every_node(run, folder)
    finally:
        run.delete_folder(folder)


def _probe_every_node(run: RunDirectory, folder: str) -> None:
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
        reason: str | None = call_on_node(node_id, _read_and_write, run, folder, node_id, seconds=_SECONDS_TO_ANSWER)
    except GetTimeoutError:
        return f"no answer within {_SECONDS_TO_ANSWER:g} s"
    except TaskUnschedulableError:
        # The node has left, so no worker will run there.
        return None
    if reason is None and not run.exists(f"{folder}/{node_id}"):
        return "other nodes do not see what it writes there"
    return reason


def _read_and_write(run: RunDirectory, folder: str, node_id: str) -> str | None:
    """Why this node cannot read what the driver wrote, or cannot write beside it; None if it can."""
    try:
        run.read(f"{folder}/driver")
        run.write(f"{folder}/{node_id}", b"node")
    except (OSError, UserError) as error:
        return first_line(error)
    return None
