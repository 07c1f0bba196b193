"""The checks of a cluster, on all nodes at the same time."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import ray
import ray.exceptions
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from blitz.data.plan import Datasets
from blitz.errors import UserError
from blitz.launch.cluster.autoscaler import grows
from blitz.launch.cluster.driver import in_the_cluster
from blitz.launch.cluster.head_node import asks_for_token
from blitz.launch.cluster.node_task import call_on_node
from blitz.launch.cluster.storage_probe import check_every_node_sees
from blitz.launch.cluster.user_code import require_picklable, shipped
from blitz.launch.doctor.data import check_rows
from blitz.launch.doctor.finding import Deadline, Finding, awaited, checked, merged, start
from blitz.launch.doctor.machine import Machine, this_machine, versions
from blitz.launch.scale import Node, Scale, explain_wait, workers_for
from blitz.run_files.directory import RunDirectory

_SECONDS_FOR_STATE = 4
Nodes = dict[str, dict[str, Any]]
"""Ray's description of each alive node, by the name that findings use."""


def examine_nodes(
    address: str, scale: Scale, storage: RunDirectory, datasets: Future[Datasets], deadline: Deadline
) -> Iterator[Finding]:
    """Check everything about the cluster at `address`, which has answered before.

    Raises:
        UserError: if it refuses this process after all, as a cluster of another Ray version does.
    """
    # Ray Client does not look at `logging_level`.
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        context = ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"{' '.join(str(error).split())}; run this on a node, with the cluster's versions") from error
    try:
        nodes = _alive_nodes()
        machines = {
            name: _call(node, this_machine, int(_resources(node).gpus), deadline=deadline)
            for name, node in nodes.items()
        }
        here, probe = start(this_machine), start(lambda: _probe(storage))
        yield from checked("workers", lambda: [_workers(scale, nodes)])
        yield from checked("authentication", lambda: [_authentication(address)])
        yield from checked("dashboard", lambda: [_dashboard(context.dashboard_url)])
        yield from checked("nodes", lambda: _machines(here, machines, deadline))
        yield from checked("storage", lambda: [_storage(probe, storage, len(nodes), deadline)])
        yield from checked("data", lambda: _data(datasets, nodes, deadline))
    finally:
        ray.shutdown()


def _alive_nodes() -> Nodes:
    alive = [node for node in ray.nodes() if node["Alive"]]
    times = Counter(node["NodeManagerAddress"] for node in alive)
    return {_name(node, is_alone=times[node["NodeManagerAddress"]] == 1): node for node in alive}


def _name(node: dict[str, Any], *, is_alone: bool) -> str:
    ip = str(node["NodeManagerAddress"])
    return ip if is_alone else f"{ip} ({node['NodeID'][:6]})"


def _resources(node: dict[str, Any]) -> Node:
    return Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))


def _call(node: dict[str, Any], function: Callable[..., Any], *args: Any, deadline: Deadline) -> Future[Any]:
    return start(lambda: call_on_node(node["NodeID"], function, *args, seconds=deadline.left_s))


def _workers(scale: Scale, nodes: Nodes) -> Finding:
    workers = workers_for(scale, [_resources(node) for node in nodes.values()], grows=grows())
    if workers.room_for is not None:
        return Finding("warning", "workers", f"the run will wait for the cluster to grow: {explain_wait(workers)}")
    gpus = f" and {workers.gpus} GPU" if workers.gpus else ""
    cpus = sum(_resources(node).cpus for node in nodes.values())
    fit = f"{workers.count} of {workers.cpus:g} CPU{gpus} each fit beside Ray Data"
    return Finding("ok", "workers", f"{fit} in {cpus:g} CPUs on {_nodes(len(nodes))}")


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _authentication(address: str) -> Finding:
    if os.environ.get("RAY_USE_TLS") == "1":
        return Finding("ok", "authentication", "certificates")
    if asks_for_token(address):
        return Finding("ok", "authentication", "the cluster asks for a token, and takes this one")
    text = "the cluster lets anyone run anything; start its head with RAY_AUTH_MODE=token"
    return Finding("warning", "authentication", text)


def _dashboard(url: str | None) -> Finding:
    try:
        # Through Ray Client the dashboard may be unreachable, and it is not needed.
        count = in_the_cluster(_known_nodes)
    except RayStateApiException as error:
        raise UserError(
            "the dashboard's State API does not answer, which Ray Train and `ray job submit` need; install "
            "ray[default] on the head and start it with --include-dashboard=true"
        ) from error
    return Finding("ok", "dashboard", f"its State API answers at http://{url} and knows {_nodes(count)}")


def _known_nodes() -> int:
    # Not with list_nodes' own filter, which reports a truncated answer where a node has left.
    return sum(node.state == "ALIVE" for node in list_nodes(timeout=_SECONDS_FOR_STATE))


def _machines(here: Future[Machine], answers: dict[str, Future[Any]], deadline: Deadline) -> Iterator[Finding]:
    found = yield from _answers(answers, deadline)
    yield from merged({name: list(machine.findings) for name, machine in found.items()})
    yield from versions({"this process": awaited(here, deadline, "this machine"), **found})


def _answers(answers: dict[str, Future[Any]], deadline: Deadline) -> Any:
    """The answers in time, by node name; each missing one is a finding."""
    found = {}
    for name, answer in answers.items():
        try:
            found[name] = answer.result(deadline.left_s)
        except TimeoutError:
            text = f"{name} has not run a task within {deadline.seconds:g} s; see `ray status` and the node's logs"
            yield Finding("error", "nodes", text)
        except ray.exceptions.RayError as error:
            last_line = str(error).strip().splitlines()[-1]
            text = f"{name} cannot run a task of this project ({last_line}); install its dependencies there"
            yield Finding("error", "nodes", text)
    return found


def _probe(storage: RunDirectory) -> None:
    storage.probe()
    check_every_node_sees(storage)


def _storage(probe: Future[None], storage: RunDirectory, nodes: int, deadline: Deadline) -> Finding:
    awaited(probe, deadline, f"--storage: {storage}")
    return Finding(
        "ok", "storage", f"{storage}: {_nodes(nodes)} and this process write there, and read what the other wrote"
    )


def _data(opened: Future[Datasets], nodes: Nodes, deadline: Deadline) -> Iterator[Finding]:
    datasets = awaited(opened, deadline, "the data")
    require_picklable(**{f"data set '{split}'": dataset for split, dataset in datasets.items()})
    with shipped():
        refs = [ray.put(dataset) for dataset in datasets.values()]
    answers = {name: _call(node, check_rows, *refs, deadline=deadline) for name, node in nodes.items()}
    found = yield from _answers(answers, deadline)
    yield from merged({name: [finding] for name, finding in found.items()})
