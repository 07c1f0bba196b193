"""A cluster of two nodes, one of which does not see the storage."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters import Head, blind_to, joined_node

pytestmark = pytest.mark.cluster


def test_a_storage_that_one_node_does_not_see_is_refused_before_training(head: Head, tmp_path: Path) -> None:
    words = ["digits", "--scale.num-workers", "2", "--storage", str(tmp_path), "--run", "run"]
    with joined_node(head, *blind_to(tmp_path)):
        done = subprocess.run(
            [sys.executable, "-m", "jobs.train", *words],
            env={**head.env, "RAY_ADDRESS": head.address},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    ip = head.address.split(":")[0]
    assert line.startswith(f"error: --storage: node {ip} (")
    assert f"does not see {tmp_path}/run as the driver does" in line
    assert "No such file" in line
    # Nothing has been trained, and the probe has left nothing.
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["plan.json", "recipe.json"]
