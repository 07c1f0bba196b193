"""How many trials run on a cluster at a time: never so many that one waits for another without end."""

import pytest

from blitz.errors import UserError
from blitz.launch.scale import Node, Scale
from blitz.launch.tune.resources import trial_resources


@pytest.mark.parametrize(
    ("workers", "cpus", "most"),
    [
        (1, [2], 1),  # A worker, and a CPU for Ray Data.
        (1, [4], 2),
        (1, [2, 2], 2),
        (2, [2, 4], 2),
        (2, [8], 2),
        (3, [4, 4, 4], 3),
        (2, [2], 1),  # Of two thirds of a CPU each.
    ],
)
def test_each_trial_on_workers_has_room_for_them_and_for_a_task(workers: int, cpus: list[int], most: int) -> None:
    room = trial_resources(Scale(num_workers=workers), [Node(each, 0) for each in cpus])
    assert room.max_concurrent == most
    assert room.resources["CPU"] == 0


def test_trials_in_a_process_fill_the_cpus_or_the_gpus() -> None:
    assert trial_resources(Scale(), [Node(4, 0), Node(1.5, 0)]).max_concurrent == 5
    assert trial_resources(Scale(cpus_per_worker=2), [Node(5, 0), Node(3, 0)]).max_concurrent == 3
    assert trial_resources(Scale(), [Node(8, 2), Node(4, 0)]).max_concurrent == 2
    assert trial_resources(Scale(use_gpu="no"), [Node(8, 2)]).resources == {"CPU": 1, "GPU": 0}


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (Scale(cpus_per_worker=8), "no node of the cluster has 8 CPUs for a trial"),
        (Scale(use_gpu="yes"), "the cluster has no GPU"),
        (Scale(num_workers=9), "it can give"),
    ],
)
def test_what_never_fits_is_refused(scale: Scale, says: str) -> None:
    with pytest.raises(UserError) as refused:
        trial_resources(scale, [Node(2, 0)])
    assert says in str(refused.value)
