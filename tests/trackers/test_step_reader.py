"""Reading metrics.jsonl while it grows and is rewound."""

import json
from pathlib import Path

import pytest

from blitz.run_files.directory import RunDirectory
from blitz.trackers import step_reader
from blitz.trackers.step_reader import StepReader


def line(step: int, **values: float) -> bytes:
    return (json.dumps({"step": step, **values}) + "\n").encode()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.of(str(tmp_path))


def test_a_step_has_the_values_of_all_its_lines_once_a_later_step_follows(run: RunDirectory) -> None:
    reader = StepReader(run)
    assert reader.read() == ([], True)
    run.append("metrics.jsonl", line(1, a=1.0) + line(2, a=2.0))
    assert reader.read() == ([{"step": 1, "a": 1.0}], True)
    run.append("metrics.jsonl", line(2, b=3.0) + b'{"step": 3, "a"')
    assert reader.read() == ([], True)
    run.append("metrics.jsonl", b": 4.0}\n")
    assert reader.read() == ([{"step": 2, "a": 2.0, "b": 3.0}], True)
    assert reader.read(complete_to=2) == ([], True)
    assert reader.read(complete_to=3) == ([{"step": 3, "a": 4.0}], True)
    assert reader.read(complete_to=3) == ([], True)


@pytest.mark.parametrize("regrown", [2, 3, 6], ids=["shorter", "as long", "longer"])
def test_after_a_rewind_no_step_is_missed(run: RunDirectory, regrown: int) -> None:
    reader, seen = StepReader(run), set()
    # What is made again may differ in values such as examples per second, and so in length.
    run.append("metrics.jsonl", b"".join(line(step, speed=1.25 * step) for step in (1, 2, 3, 4)))
    seen |= {step["step"] for step in reader.read()[0]}
    assert seen == {1, 2, 3}
    again = range(2, 2 + regrown)
    run.write("metrics.jsonl", line(1, speed=1.25) + b"".join(line(step, speed=step / 7) for step in again))
    seen |= {step["step"] for step in reader.read(complete_to=again[-1])[0]}
    assert seen >= {1, *again}


def test_a_long_file_is_read_in_pieces(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_reader, "_PIECE_BYTES", 40)
    run.append("metrics.jsonl", b"".join(line(step, **{"x" * (step % 9 * 10): 0.5}) for step in range(1, 50)))
    reader, found, at_end = StepReader(run), [], False
    while not at_end:
        steps, at_end = reader.read(complete_to=49)
        # A line that is longer than a piece doubles it.
        assert len(steps) <= 4
        found += [step["step"] for step in steps]
    assert found == list(range(1, 50))
