import math
from dataclasses import replace

import pytest

from blitz.report.curves import event_texts
from blitz.report.formatting import duration, number, rounded, sparkline
from blitz.report.record import Record
from blitz.report.series import Curves
from blitz.report.terminal_summary import summary_lines

RECORD = Record(
    name="run",
    uri="/runs/run",
    recipe={"recipe": "digits"},
    plan={},
    curves=Curves.of(
        [
            {"step": 1, "train/loss": 2.0, "compute_seconds": 1.5, "data_seconds": 0.25},
            {"step": 2, "train/loss": 0.5, "evaluation_seconds": 0.2},
        ]
    ),
    events=[{"what": "finished", "step": 2, "checkpoint_seconds": 0.05}],
    result=None,
    evaluation=None,
    explanation=None,
    bad_rows=0,
    pictures=[],
)


def test_a_sparkline_goes_from_the_lowest_to_the_highest_of_means() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([8, 8, 4, 4, 0, 0], width=3) == "█▅▁"
    assert sparkline([0, 7], plain=True) == "_#"
    assert sparkline([3, 3]) == "▁▁"
    assert sparkline([math.nan, 1.0, 2.0]) == "▁█"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(1000)))) == 40


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (12, "12"), (1234567.0, "1,234,567"), (43210.9, "43,211"), (math.nan, "–"), (None, "–")],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


def test_durations_and_cells_are_short() -> None:
    assert [duration(seconds) for seconds in (3.21, 75, 3660)] == ["3.2 s", "1 min 15 s", "1 h 01 min"]
    assert [rounded(text) for text in ("0.0127093963", "0.5", "adam", "")] == ["0.01271", "0.5", "adam", ""]


def test_a_terminal_shows_the_loss_as_a_curve_and_what_the_time_went_to() -> None:
    assert summary_lines(RECORD, plain=False) == [
        "train/loss               █▁  2 to 0.5",
        "time                     2.0 s: 75% compute, 12% waiting for data, 10% evaluation, 2% checkpoints",
    ]
    "".join(summary_lines(RECORD, plain=True)).encode("ascii")


def test_a_restart_says_how_long_each_part_took() -> None:
    event = {"what": "restarted", "time": 0, "step": 1061, "seconds": {"processes": 6.04, "torch": 5, "restore": 60}}
    assert event_texts(replace(RECORD, events=[event])) == [
        "restarted after a failure: 1 min 11 s until step 1,061 was done "
        "(processes 6.0 s, torch 5.0 s, restore 1 min 00 s; 1970-01-01 00:00:00 UTC)"
    ]
