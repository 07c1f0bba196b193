"""What is a hang, and what is none."""

import io
import os
import pdb
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from blitz.launch.hang import Beat, Pulse, TrainingPulse, culprits, silences_of_hang, where
from blitz.training.clock import Clock
from tests.waiting import wait_until

STEP_S, APART_S = 45.0, 450.0
NOW = 1000.0


def beat(rank: int, *, still_s: float, account: str = "compute", silent_for: float = 1.0, step: int = 40) -> Beat:
    limit_s = STEP_S if account in ("data", "compute") else APART_S
    pulse = Pulse(step, account, still_s, limit_s, STEP_S)
    return Beat("start", rank, 2, "10.0.0.1", ("node", 7), "", 1, pulse, has_ended=False, arrived=NOW - silent_for)


@pytest.mark.parametrize(
    ("ranks", "silences"),
    [
        ([beat(0, still_s=50), beat(1, still_s=49, account="data")], {}),
        ([beat(0, still_s=50), beat(1, still_s=5, silent_for=50)], {1: 50}),
        # One that waits for a stopped one in an evaluation.
        ([beat(0, still_s=50, account="evaluation"), beat(1, still_s=5, silent_for=50)], {1: 50}),
        ([beat(0, still_s=5, silent_for=50), beat(1, still_s=5, silent_for=60)], {0: 50, 1: 60}),
        ([beat(0, still_s=460), beat(1, still_s=451, account="checkpoint")], {}),
    ],
)
def test_ranks_hang_if_none_makes_progress_for_longer_than_it_may(
    ranks: list[Beat], silences: dict[int, float]
) -> None:
    assert silences_of_hang(ranks, NOW) == silences


@pytest.mark.parametrize(
    "ranks",
    [
        [],
        # Rank 1 has not started.
        [beat(0, still_s=50)],
        [beat(0, still_s=50), beat(1, still_s=3)],
        # Rank 1 writes a checkpoint, and rank 0 waits for it.
        [beat(0, still_s=300), beat(1, still_s=300, account="checkpoint")],
        # News of rank 1 are lost, but rank 0 could not make progress without it.
        [beat(0, still_s=3), beat(1, still_s=3, silent_for=50)],
        # Rank 1 has failed.
        [beat(0, still_s=50), replace(beat(1, still_s=50), has_ended=True)],
    ],
)
def test_nothing_else_is_a_hang(ranks: list[Beat]) -> None:
    assert silences_of_hang(ranks, NOW) is None


def test_the_rank_that_hangs_is_the_one_that_does_not_wait_for_others_or_is_behind() -> None:
    waiting = ["/site-packages/torch/autograd/graph.py:829 in _engine_run_backward", "mine.py:3 in step"]
    looping = [
        "/usr/lib/python3.11/threading.py:331 in wait",
        "mine.py:31 in forward",
        "/blitz/training/loop.py:9 in x",
    ]
    ranks = [beat(0, still_s=50), beat(1, still_s=50)]
    assert culprits(ranks, {0: waiting, 1: looping}) == [ranks[1]]
    assert where(looping) == ", in mine.py:31 in forward"
    behind = [beat(0, still_s=50, step=39), beat(1, still_s=50)]
    assert culprits(behind, {0: waiting, 1: waiting}) == [behind[0]]
    assert culprits(ranks, {0: waiting, 1: waiting}) == ranks


def looked(timeout_s: float, act: Callable[[Clock], None]) -> Pulse:
    """The pulse of a thread after `act`, a second after it began."""
    clock = Clock()
    pulse = TrainingPulse(clock, first_step=10, timeout_s=timeout_s)
    act(clock)
    clock.since -= 1.0
    return pulse.look()


def test_the_first_step_and_all_but_steps_may_take_longer_and_so_may_steps_that_are_known_to() -> None:
    def two_steps(clock: Clock) -> None:
        clock.account = "compute"
        clock.step(1)
        clock.since -= 100.0
        clock.step(1)

    def then_a_checkpoint(clock: Clock) -> None:
        two_steps(clock)
        clock.account = "checkpoint"

    assert looked(60.0, lambda clock: None).limit_s == 600
    # One step does not show how long a step takes: it may have compiled.
    assert looked(60.0, lambda clock: clock.step(1)).limit_s == 600
    pulse = looked(60.0, two_steps)
    assert (pulse.step, pulse.account, pulse.doing) == (12, "compute", "computing")
    assert pulse.limit_s == pytest.approx(300, abs=10)
    assert pulse.silent_s == pulse.limit_s
    assert 1.0 <= pulse.still_s < 10.0
    assert looked(60.0, then_a_checkpoint).limit_s == 600
    assert looked(600.0, two_steps).limit_s == 450


def test_a_thread_that_is_held_in_a_debugger_makes_progress() -> None:
    pulses: list[TrainingPulse] = []
    reads, writes = os.pipe()

    def paused() -> None:
        clock = Clock()
        clock.since -= 1000.0
        pulses.append(TrainingPulse(clock, first_step=0, timeout_s=60.0))
        with os.fdopen(reads) as commands:
            pdb.Pdb(stdin=commands, stdout=io.StringIO(), nosigint=True).set_trace()
        pulses.append(TrainingPulse(clock, first_step=0, timeout_s=60.0))

    thread = threading.Thread(target=paused)
    thread.start()
    try:
        wait_until(lambda: pulses)
        # The time before it counts until it is seen in the debugger.
        assert wait_until(lambda: (pulse := pulses[0].look()).still_s < 1.0 and pulse)
    finally:
        os.write(writes, b"continue\n")
        os.close(writes)
        thread.join()
