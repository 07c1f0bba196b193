"""Where the time of a run went, from its events."""

import pytest

from blitz.run_files.goodput import goodput

COUNTED = {"compute": 60.0, "data": 5.0, "evaluation": 4.0, "checkpoint": 1.0}


def test_a_run_in_one_start_spent_its_time_on_starting_and_on_what_the_clock_counted() -> None:
    spent = goodput(
        [
            {"what": "started", "time": 1010.0, "began": 1000.0, "requested": 1004.0, "process": 1007.0},
            {"what": "finished", "time": 1080.0, "counted": COUNTED},
        ]
    )
    assert spent is not None
    assert spent.seconds == {
        "steps that count": 60.0,
        "waiting for data": 5.0,
        "evaluation": 4.0,
        "checkpoints": 1.0,
        "start-up": 7.0,
        "waiting for machines": 3.0,
    }
    assert spent.share == 60 / 80
    assert [(span.cause, span.begins) for span in spent.spans][:4] == [
        ("start-up", 1000.0),
        ("waiting for machines", 1004.0),
        ("start-up", 1007.0),
        ("steps that count", 1010.0),
    ]


def test_what_a_killed_command_did_after_its_checkpoint_is_lost_and_until_the_next_it_is_stopped() -> None:
    events = [
        {"what": "started", "time": 1010.0, "began": 1000.0},
        # Killed; it had last written at 1050, 10 seconds of work after its checkpoint.
        {
            "what": "resumed",
            "time": 1105.0,
            "began": 1100.0,
            "last_written": 1050.0,
            "counted": {"compute": 28.0, "checkpoint": 2.0},
        },
        {"what": "failed", "time": 1155.0},
        # Its last whole checkpoint is older than the one that the second start resumed from.
        {
            "what": "resumed",
            "time": 1205.0,
            "began": 1200.0,
            "last_written": 1154.0,
            "counted": {"compute": 20.0, "checkpoint": 2.0},
        },
    ]
    spent = goodput(events, checkpoint={"compute": 55.0, "checkpoint": 3.0}, until=1251.0)
    assert spent is not None
    assert spent.seconds == {
        "steps that count": 55.0,
        "checkpoints": 3.0,
        "start-up": 10.0 + 5.0 + 5.0,
        # 18 of the first start, all of the second and 10 of the third.
        "lost steps": 18.0 + 50.0 + 10.0,
        "stopped": 50.0 + 45.0,
    }
    assert sum(spent.seconds.values()) == 251.0


def test_workers_that_the_same_command_restarts_lose_steps_until_the_failure_is_noticed_or_the_hang_begins() -> None:
    events = [
        {"what": "started", "time": 1010.0, "began": 1000.0},
        {
            "what": "resumed",
            "time": 1085.0,
            "began": 1000.0,
            "last_written": 1060.0,
            # When the failure was noticed.
            "requested": 1070.0,
            "process": 1075.0,
            "counted": {"compute": 50.0},
        },
        {"what": "hang", "time": 1155.0, "hang_seconds": 50.0},
        {
            "what": "resumed",
            "time": 1175.0,
            "began": 1000.0,
            "last_written": 1104.0,
            "requested": 1160.0,
            "process": 1165.0,
            "counted": {"compute": 65.0},
        },
        {"what": "finished", "time": 1185.0, "counted": {"compute": 75.0}},
    ]
    spent = goodput(events)
    assert spent is not None
    assert spent.seconds == {
        "steps that count": 75.0,
        "start-up": 10.0 + 10.0 + 10.0,
        "waiting for machines": 5.0 + 5.0,
        "lost steps": 10.0 + 5.0,
        "hangs": 55.0,
    }
    assert sum(spent.seconds.values()) == 185.0


def test_a_hang_that_ended_by_itself_is_no_time_of_steps() -> None:
    events = [
        {"what": "started", "time": 1000.0, "began": 1000.0},
        {"what": "hang", "time": 1065.0, "hang_seconds": 45.0},
        {"what": "hang ended", "time": 1070.0, "hang_seconds": 50.0, "account": "data"},
        {"what": "finished", "time": 1100.0, "counted": {"compute": 48.0, "data": 52.0}},
    ]
    spent = goodput(events)
    assert spent is not None
    assert spent.seconds == {"steps that count": 48.0, "waiting for data": 2.0, "hangs": 50.0}


def test_a_run_that_is_interrupted_while_it_hangs_keeps_the_time_of_its_steps() -> None:
    events = [
        {"what": "started", "time": 0.0, "began": 0.0},
        {"what": "hang", "time": 960.0, "hang_seconds": 50.0},
        {"what": "interrupted", "time": 1410.0},
        {"what": "hang ended", "time": 1410.0, "hang_seconds": 500.0, "account": "compute"},
    ]
    spent = goodput(events, checkpoint={"compute": 900.0})
    assert spent is not None
    assert spent.seconds == {"steps that count": 900.0, "lost steps": 10.0, "hangs": 500.0}


@pytest.mark.parametrize("events", [[], [{"what": "started", "time": 1.0}, {"what": "finished", "time": 2.0}]])
def test_events_of_older_versions_say_too_little(events: list[dict[str, object]]) -> None:
    assert goodput(events) is None
