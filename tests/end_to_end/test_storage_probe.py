"""A cluster of two nodes, one of which does not see the storage."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.cluster
RAY = str(Path(sysconfig.get_path("scripts")) / "ray")


@contextmanager
def cluster_with_a_blind_node(folder: Path) -> Iterator[str]:
    """The address of a cluster whose second node has a file system of its own at `folder`."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    start = f"mount -t tmpfs none {folder} && exec {RAY} start --address={cluster.address} --num-cpus=2 --block"
    node = subprocess.Popen(["unshare", "--mount", "sh", "-c", start], stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    try:
        assert any("Ray runtime started" in line for line in node.stdout)
        yield cluster.address
    finally:
        started = psutil.Process(node.pid)
        for process in (*started.children(recursive=True), started):
            process.kill()
        node.wait()
        cluster.shutdown()


def may_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode == 0


def test_a_storage_that_one_node_does_not_see_is_refused_before_training(tmp_path: Path) -> None:
    if not may_mount():
        pytest.skip("this user may not mount a file system")
    with cluster_with_a_blind_node(tmp_path) as address:
        words = ["digits", "--scale.num-workers", "2", "--storage", str(tmp_path), "--run", "run"]
        done = subprocess.run(
            [sys.executable, "-m", "jobs.train", *words],
            env={**os.environ, "RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    ip = address.split(":")[0]
    assert line.startswith(f"error: --storage: node {ip} (")
    assert f"does not see {tmp_path}/run as the driver does" in line
    assert "No such file" in line
    # Nothing has been trained, and the probe has left nothing.
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [".lock", "plan.json", "recipe.json"]
