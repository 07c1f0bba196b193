"""How many trials run on a cluster at a time: never so many that one waits for another without end."""

import pytest

from blitz.errors import UserError
from blitz.launch.scale import Node, Scale
from blitz.launch.tune.ray_trials import room_for_trials


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
    room = room_for_trials(Scale(num_workers=workers), [Node(each, 0) for each in cpus])
    assert room.most == most
    assert room.resources["CPU"] == 0


def test_trials_in_a_process_fill_the_cpus_or_the_gpus() -> None:
    assert room_for_trials(Scale(), [Node(4, 0), Node(1.5, 0)]).most == 5
    assert room_for_trials(Scale(cpus_per_worker=2), [Node(5, 0), Node(3, 0)]).most == 3
    assert room_for_trials(Scale(), [Node(8, 2), Node(4, 0)]).most == 2
    assert room_for_trials(Scale(use_gpu="no"), [Node(8, 2)]).resources == {"CPU": 1, "GPU": 0}


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
        room_for_trials(scale, [Node(2, 0)])
    assert says in str(refused.value)
