"""A run whose number of workers follows the nodes of the cluster."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from blitz.launch.scale import Node, Scale, workers_for
from blitz.optim import Optim
from blitz.recipes import find_recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import Checkpoints
from tests.clusters import env_of_driver
from tests.float64 import TOLERANCE
from tests.running import losses, result, train, train_workers
from tests.waiting import wait_until

# In float64, where a sum in another order of the ranks changes no loss beyond the tolerance (tests/float64.py).
SOURCE = """
from dataclasses import dataclass

from blitz.recipes.digits import Digits


@dataclass(frozen=True)
class Digits64(Digits):
    def build_model(self):
        return super().build_model().double()

    def preprocess(self, batch):
        found = super().preprocess(batch)
        return {name: column.double() if column.is_floating_point() else column for name, column in found.items()}
"""
SETTINGS_OF_RECIPE: dict[str, Any] = {
    "epochs": 10_000,
    "global_batch_size": 31,
    "log_every_steps": 10,
    "evaluate_every_steps": 100_000,
    "optim": Optim(name="momentum", lr=0.001),
}
FLAGS = shlex.split(
    "--epochs 10000 --global-batch-size 31 --log-every-steps 10 --evaluate-every-steps 100000"
    " --checkpoint.every-steps 100 --optim.name momentum --optim.lr 0.001 --optim.schedule constant"
    " --optim.warmup-steps 0 --run elastic --scale.min-workers 1 --scale.max-workers 3 --scale.resize-every-s 1"
    " --max-failures 1 --scale.feed stream"
)
SECONDS_TO_WAIT = 300
SECONDS_TO_PREEMPTION = 15
SETTINGS = {
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5",
    # A node that has been taken still counts for one with room.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "4",
}


def world_sizes(folder: Path) -> list[tuple[int, int]]:
    """Step and number of workers of every line on the training loss."""
    metrics = folder / "elastic" / "metrics.jsonl"
    lines = metrics.read_bytes().split(b"\n")[:-1] if metrics.exists() else []
    found = [json.loads(line) for line in lines]
    return [(line["step"], line["world_size"]) for line in found if "world_size" in line]


def wait_for(workers: int, folder: Path, run: subprocess.Popen[bytes]) -> int:
    """Until so many workers have made two checkpoints; the first step that they have logged."""

    def first_step() -> int | None:
        newest_first = reversed(world_sizes(folder))
        steps = [step for step, _ in takewhile(lambda line: line[1] == workers, newest_first)]
        # Ten steps a line and a hundred a checkpoint: what comes after one is made again by the next workers.
        return steps[-1] if len(steps) > 20 else None

    found = wait_until(first_step, process=run, says=lambda: f"not {workers} workers: {world_sizes(folder)[-3:]}")
    assert found is not None
    return found


def preempt(node: Any, cluster: Cluster, printed: Path) -> int:
    """Announce a node's preemption, and end it at its deadline; the step that the run has saved by then."""
    end = time.time() + SECONDS_TO_PREEMPTION
    gcs = GcsClient(address=cluster.address)
    reason = autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION  # type: ignore[attr-defined]
    accepted, why = gcs.drain_node(node.node_id, reason, "", int(end * 1000))
    assert accepted, why
    workers = train_workers()
    message = re.compile(r"step (\d+): a machine is about to be preempted")
    saved = wait_until(lambda: message.findall(printed.read_text()), says=printed.read_text, seconds=end - time.time())
    psutil.wait_procs(workers, timeout=SECONDS_TO_WAIT)
    assert time.time() > end
    cluster.remove_node(node, allow_graceful=False)
    return int(saved[0])


@pytest.mark.cluster
@pytest.mark.slow
def test_nodes_that_join_are_killed_or_preempted_change_the_number_of_workers_and_nothing_else(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {**env_of_driver(cluster.address), **SETTINGS}
    source, printed = tmp_path / "elastic_digits.py", tmp_path / "printed"
    source.write_text(SOURCE)
    command = [sys.executable, "-m", "jobs.train", str(source), *FLAGS, "--storage", str(tmp_path)]
    with printed.open("w") as output:
        run = subprocess.Popen(command, env=env, stdout=output)
    try:
        wait_for(1, tmp_path, run)
        second, third = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
        wait_for(3, tmp_path, run)
        cluster.remove_node(third, allow_graceful=False)
        wait_for(2, tmp_path, run)
        # The one failure that is allowed is used up.
        saved = preempt(second, cluster, printed)
        assert wait_for(1, tmp_path, run) > saved
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=SECONDS_TO_WAIT) == 130
    finally:
        run.kill()

    sizes = [size for _, size in world_sizes(tmp_path)]
    changes = [size for i, size in enumerate(sizes) if sizes[i - 1 : i] != [size]]
    # There may be a look for room between the two nodes that join.
    assert changes in ([1, 3, 2, 1], [1, 2, 3, 2, 1])
    # What is left is done in this process, from wherever the workers had come to; the same steps without a change are
    # another run.
    elastic = RunDirectory.of(str(tmp_path), "elastic")
    steps = elastic.checkpoint_steps()[-1] // 100 * 100 + 200
    monkeypatch.setattr(sys, "path", [*sys.path])
    recipe = find_recipe(str(source))(**SETTINGS_OF_RECIPE, max_steps=steps)
    train(recipe, tmp_path / "elastic")
    fixed = train(recipe, tmp_path / "fixed", checkpoints=Checkpoints(every_steps=100_000))
    assert result(elastic)["rows_digest"] == result(fixed)["rows_digest"]
    assert len(losses(elastic)) == len(losses(fixed)) == steps // 10
    assert losses(elastic) == pytest.approx(losses(fixed), rel=TOLERANCE)


def test_every_node_keeps_room_for_ray_data() -> None:
    elastic = Scale(min_workers=2, max_workers=8)
    workers = workers_for(elastic, [Node(1, 0), Node(4, 0)])
    assert workers.count == (2, 8)
    for cpus in (1, 2, 4, 64):
        assert cpus - cpus // workers.cpus * workers.cpus + 1e-9 >= workers.task_cpus
