"""Whether a cluster grows by itself, as one of `ray up` or of KubeRay may."""

import json

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.experimental.internal_kv import _internal_kv_get


def grows() -> bool:
    """Whether the cluster that this process is connected to has an autoscaler with node types of its own to add.

    What it may add Ray does not say. But every head has an autoscaler that reports on its nodes, and one that was not
    given any types to choose from names the type of each node after the node.
    """
    return any(name != f"node_{node}" for node, name in _node_types())


def _node_types() -> list[tuple[str | None, str]]:
    """Each node's id, and its type as the autoscaler calls it."""
    # The one of `ray up` and `ray start`; the second kind, which KubeRay may start, does not write this.
    if status := _internal_kv_get(DEBUG_AUTOSCALING_STATUS):
        report = json.loads(status).get("autoscaler_report") or {}
        return list((report.get("node_type_mapping") or {}).items())
    seen = get_cluster_status(ray.get_runtime_context().gcs_address)
    if seen.stats.autoscaler_version in (None, "0"):
        return []
    return [(node.node_id, node.ray_node_type_name) for node in (*seen.active_nodes, *seen.idle_nodes)]
