"""What Ray Data is asked to do between two looks at its tasks."""

import time

from ray.data import DataContext

from blitz.launch.cluster.ray_stream import Rests


def test_ray_data_rests_between_two_looks_at_its_tasks() -> None:
    context = DataContext.get_current().copy()
    context.custom_execution_callback_classes = [Rests]
    assert Rests in context.execution_callback_classes
    rests, began = Rests(), time.monotonic()
    for _ in range(6):
        rests.on_execution_step(None)
    # The first has none before it.
    assert time.monotonic() - began > 5 * 0.019
