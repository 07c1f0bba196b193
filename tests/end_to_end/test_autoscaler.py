"""A cluster that has fewer nodes than a run asks for, and adds them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from tests.clusters import head_node
from tests.running import result, train

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


SECOND = {
    "RAY_enable_autoscaler_v2": "1",
    # How it knows the head, which here no cloud has started.
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    # As KubeRay tells every pod.
    "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
}
"""Settings for the autoscaler that KubeRay starts."""


def autoscaling(address: str) -> dict[str, Any]:
    """For `ray start --autoscaling-config`: nodes of this machine, of two CPUs each."""
    types = {
        FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    }
    provider = {
        # Ray's own for its tests, which by its short name wants a file that only its source has.
        "type": "external",
        "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
        "gcs_address": address,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
    }
    nothing = ["initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray"]
    return {
        "cluster_name": "grows",
        "max_workers": 2,
        "upscaling_speed": 100,
        "idle_timeout_minutes": 5,
        "provider": provider,
        "available_node_types": types,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "auth": {},
        "docker": {},
        "head_node": {},
        "worker_nodes": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in nothing},
    }


@pytest.mark.parametrize("version", [{}, SECOND], ids=["first", "second"])
def test_a_run_waits_for_the_nodes_that_the_autoscaler_adds(version: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "autoscaling.json"
    env = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", **version}
    flags = [f"--autoscaling-config={config}"]
    with head_node(
        *flags, cpus=1, env=env, before=lambda address: config.write_text(json.dumps(autoscaling(address)))
    ) as head:
        words = ["digits", "--epochs", "1", "--scale.num-workers", "2", "--scale.cpus-per-worker", "1"]
        words += ["--run", "run", "--no-report"]
        done = subprocess.run(
            [sys.executable, "-m", "jobs.train", *words, "--storage", str(tmp_path)],
            env={**head.env, "RAY_ADDRESS": head.address},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    # None at first, unless the look at the files has already brought a node.
    assert re.search(r"^waits for the cluster to grow: it has room for [01] of 2 workers of 1 CPUs;", done.stdout, re.M)
    alone = train(Digits(epochs=1), tmp_path / "alone")
    assert result(RunDirectory.of(str(tmp_path), "run"))["rows_digest"] == result(alone)["rows_digest"]
