"""A rank that stays slower than the others is reported, with the likely reason; no other is."""

from dataclasses import replace

import pytest

from blitz.launch.straggler import Load, RankSpeed, SpeedReader, Stragglers
from blitz.training.clock import Clock, StepParts

FREE = Load(cpu_wait=0.01, steal=0.0, page_faults=2.0)
FAST = RankSpeed(StepParts(steps=50, data_s=0.01, own_s=0.09, others_s=0.1), FREE)
SLOW = RankSpeed(StepParts(steps=50, data_s=0.01, own_s=0.2, others_s=0.0), FREE)


def reports_of(speed: RankSpeed, *, until: float = 60.0) -> dict[float, dict[int, str]]:
    """What is reported of a rank beside three fast ones, by the time at which it is."""
    stragglers, found = Stragglers(), {}
    for second in range(0, int(until), 5):
        if reports := stragglers.look({0: FAST, 1: FAST, 2: speed, 3: FAST}, float(second)):
            found[float(second)] = reports
    return found


@pytest.mark.parametrize(
    ("speed", "reason"),
    [
        (SLOW, "its CPUs are free, so look at its clock or its GPU"),
        (replace(SLOW, parts=replace(SLOW.parts, data_s=0.2, own_s=0.09)), "likely because its rows arrive late"),
        (replace(SLOW, load=replace(FREE, cpu_wait=0.5)), "other processes use its CPUs (it waits for one 50% of the"),
        (replace(SLOW, load=replace(FREE, steal=0.3)), "the host of its virtual machine is busy (30% of its CPU time"),
        (
            replace(SLOW, load=replace(FREE, page_faults=900.0)),
            "its memory is swapped out (900 pages a second",
        ),
    ],
)
def test_a_rank_is_reported_once_when_it_was_slow_for_50_seconds(speed: RankSpeed, reason: str) -> None:
    ((second, reports),) = reports_of(speed).items()
    assert second == 50.0
    assert list(reports) == [2]
    assert "times as slow as the others, for 50 s: 0." in reports[2]
    assert reason in reports[2]


def test_one_that_is_not_twice_as_slow_or_not_for_so_long_is_not_reported() -> None:
    assert reports_of(replace(SLOW, parts=replace(SLOW.parts, own_s=0.18))) == {}
    assert reports_of(SLOW, until=50.0) == {}
    stragglers = Stragglers()
    for second in range(200):
        # It recovers every 40 seconds.
        assert not stragglers.look({0: FAST, 1: FAST if second % 40 == 0 else SLOW}, float(second))
    assert not stragglers.look({0: SLOW}, 1000.0)


def test_a_rank_that_has_recovered_is_reported_too() -> None:
    stragglers = Stragglers()
    assert not stragglers.look({0: FAST, 1: SLOW}, 0.0)
    assert stragglers.look({0: FAST, 1: SLOW}, 50.0)
    assert stragglers.look({0: FAST, 1: FAST}, 55.0) == {1: "is as fast as the others again"}
    assert not stragglers.look({0: FAST, 1: FAST}, 60.0)


def test_the_parts_of_a_step_are_means_since_the_last_reading() -> None:
    clock = Clock()
    reader = SpeedReader(clock)
    assert reader.read() is None
    for account, seconds in (("data", 3000.0), ("compute", 5000.0), ("evaluation", 7000.0), ("compute", 1000.0)):
        with clock.on(account):  # type: ignore[arg-type]
            clock.since -= seconds
    clock.step(10)
    clock.step(10)
    speed = reader.read()
    assert speed is not None
    assert speed.parts.steps == 2
    # The clock runs on while the test does, on a busy machine for some seconds.
    assert speed.parts.data_s == pytest.approx(1500, abs=100)
    assert speed.parts.own_s == pytest.approx(3000, abs=100)
    assert reader.read() is None
