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
