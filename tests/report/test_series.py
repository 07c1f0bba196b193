"""Curves that are thinned while they are read."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blitz.report.curves import curve_charts
from blitz.report.record import read_record
from blitz.report.series import Curves, Series
from blitz.run_files.directory import RunDirectory


def series_of(values: list[float]) -> Series:
    series = Series()
    for start in range(0, len(values), 1000):
        steps = range(start + 1, min(start + 1000, len(values)) + 1)
        series.extend(values[start : start + 1000], list(steps), [step / 10 for step in steps])
    return series


@pytest.mark.parametrize("count", [1, 1199, 1200])
def test_up_to_1200_values_are_each_a_point(count: int) -> None:
    points = series_of([float(value) for value in range(count)]).points
    assert [point.mean for point in points] == list(range(count))
    assert [point.step for point in points] == list(range(1, count + 1))


@pytest.mark.parametrize("count", [1201, 2400, 2401, 9_999, 65_536, 100_003])
def test_of_more_values_the_points_are_means_of_equally_many_neighbours_with_their_extremes(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    points = series_of(values.tolist()).points
    assert 600 <= len(points) <= 1200
    each = points[0].count
    groups = [values[start : start + each] for start in range(0, count, each)]
    assert [point.low for point in points] == [group.min() for group in groups]
    assert [point.high for point in points] == [group.max() for group in groups]
    # Sums of up to 128 numbers, in another order.
    assert [point.mean for point in points] == pytest.approx([group.mean() for group in groups], rel=1e-12, abs=1e-13)
    assert (points[-1].step, points[-1].epoch) == (count, count / 10)


def test_a_single_extreme_value_among_many_is_drawn(tmp_path: Path) -> None:
    run = RunDirectory.of(str(tmp_path), "one")
    run.write_json("recipe.json", {"recipe": "digits"})
    lines = [{"step": step, "epoch": step / 100, "train/loss": 1.0 + 50 * (step == 7_777)} for step in range(20_000)]
    run.append_metrics(lines)
    charts = curve_charts([read_record(run)])
    points = charts["loss"]["data"]["values"]
    assert max(point["high"] for point in points) == 51.0
    assert len(points) <= 1200


def test_sums_of_time_are_of_all_lines() -> None:
    seconds = {"compute_seconds": 0.5, "data_seconds": 0.25}
    curves = Curves.of({"step": step, "world_size": 1 + step // 4000, **seconds} for step in range(5000))
    assert curves.seconds == {"compute_seconds": 2500.0, "data_seconds": 1250.0}
    assert (curves.world_sizes, curves.step) == ({1, 2}, 4999)


def test_values_that_are_no_numbers_do_not_end_it() -> None:
    points = series_of([math.nan, math.inf, *[1.0] * 5000]).points
    assert points[-1].mean == 1.0
    assert len(points) <= 1200


def test_the_memory_for_a_report_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from blitz.report.record import read_record; "
        "from blitz.run_files.directory import RunDirectory; read_record(RunDirectory.of(sys.argv[1])); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    kibibytes = []
    for count in (1_000, 100_000):
        run = RunDirectory.of(str(tmp_path), str(count))
        run.write_json("recipe.json", {"recipe": "digits"})
        line = json.dumps({"step": 1, "epoch": 1.0, "train/loss": 0.1, "lr": 0.1, "examples_per_second": 3.0})
        run.write("metrics.jsonl", f"{line}\n".encode() * count)
        done = subprocess.run([sys.executable, "-c", code, run.uri], capture_output=True, text=True, check=True)
        kibibytes.append(int(done.stdout))
    # The file alone is 9 MB larger, and as dictionaries it was 60 MB.
    assert kibibytes[1] - kibibytes[0] < 8_000
