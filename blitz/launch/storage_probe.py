"""Whether every node of a cluster sees the run directory: each reads what the driver writes, and the driver what each
writes. Nothing here imports torch, which takes seconds that a probe can do without.
"""

import secrets
import time
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from blitz.errors import UserError
from blitz.training.run_directory import RunDirectory

_SECONDS_TO_ANSWER = 60.0
_SECONDS_TO_ASK_AGAIN = 0.1


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
    end, silent = time.monotonic() + _SECONDS_TO_ANSWER, f"no answer within {_SECONDS_TO_ANSWER:g} s"
    unheard = {node["NodeID"] for node in ray.nodes()}
    while nodes := [node for node in ray.nodes() if node["Alive"] and node["NodeID"] in unheard]:
        asked = {_answer_from(node["NodeID"], run, folder): node for node in nodes}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=max(0.0, end - time.monotonic()))
        for answer, node in asked.items():
            reason: str | None = silent
            if answer in answered:
                try:
                    reason = ray.get(answer)
                except TaskUnschedulableError:
                    # It has only just come, and is not known to all of Ray yet; or it is going.
                    if time.monotonic() < end:
                        time.sleep(_SECONDS_TO_ASK_AGAIN)
                        continue
            if reason is None and not run.exists(f"{folder}/{node['NodeID']}"):
                reason = "what it writes there is not seen by others"
            if reason is not None:
                raise UserError(
                    f"--storage: node {node['NodeManagerAddress']} ({node['NodeManagerHostname']}) does not see "
                    f"{run} as the driver does ({reason}); name a folder that all nodes mount, or an object store for "
                    "which all nodes have credentials, such as s3://bucket/runs"
                )
            unheard.discard(node["NodeID"])


def _answer_from(node_id: str, run: RunDirectory, folder: str) -> "ray.ObjectRef[str | None]":
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    answer: Any = _answer.options(num_cpus=0, scheduling_strategy=there, max_retries=0)
    return answer.remote(run, folder, node_id)  # type: ignore[no-any-return]


@ray.remote
def _answer(run: RunDirectory, folder: str, node_id: str) -> str | None:
    """Why this node does not see what the driver has written, or cannot write beside it."""
    try:
        run.read(f"{folder}/driver")
        run.write(f"{folder}/{node_id}", b"node")
    except (OSError, UserError) as error:
        return str(error).splitlines()[0]
    return None
