from pathlib import Path

import pytest

from blitz.data.csv.reading import image_files as images
from blitz.data.csv.reading.image_files import check_images
from blitz.data.csv.reading.index import index_csv
from blitz.data.parallel_map import parallel_map_by
from blitz.launch.cluster.ray_tasks import map_on_ray
from tests.test_image_csv_faults import Corrupted

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_runtime")]


def test_the_cluster_maps_in_order() -> None:
    assert list(map_on_ray(lambda number: number * number, range(100))) == [number * number for number in range(100)]
    assert list(map_on_ray(str, [])) == []


def test_files_are_checked_by_tasks_as_they_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_PATHS_A_TASK", 10)
    index = index_csv(Corrupted(tmp_path / "images", seed=4, rows=80).csv, tmp_path / "cache")
    here = check_images(index, "path")
    with parallel_map_by(map_on_ray):
        by_tasks = check_images(index, "path")
    assert len(here) > 10
    assert by_tasks.faults.equals(here.faults)


def test_files_of_a_table_are_read_by_tasks_as_they_are_here(tmp_path: Path) -> None:
    for number in range(6):
        rows = "".join(f"{row},{'ab'[row % 2]}{number % 3}\n" for row in range(20))
        (tmp_path / f"{number}.csv").write_text(f"x,y\n{rows}oops,a0\n")
    here = index_csv(f"{tmp_path}/*.csv", tmp_path / "here")
    with parallel_map_by(map_on_ray):
        by_tasks = index_csv(f"{tmp_path}/*.csv", tmp_path / "tasks")
    assert by_tasks.table().equals(here.table())
    assert (by_tasks.columns, by_tasks.codes, by_tasks.content) == (here.columns, here.codes, here.content)
    assert by_tasks.bad_rows().messages(9) == here.bad_rows().messages(9)
    assert len(here.bad_rows()) == 6
