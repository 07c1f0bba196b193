"""Whether a cluster grows by itself, as one of `ray up` or of KubeRay may."""

from blitz.launch.cluster.ray_internals import node_types


def grows() -> bool:
    """Whether the connected cluster has an autoscaler with node types of its own to add.

    Ray does not report what the autoscaler may add. But every head runs one that reports on the nodes, and one that was
    configured with no types names the type of each node after the node.
    """
    return any(name != f"node_{node}" for node, name in node_types())
