import shutil
from pathlib import Path

import pytest

from blitz.launch.doctor.upload import upload, upload_sizes

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with this project's rules of what is not uploaded, and something to leave out."""
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, tmp_path)
    for name in (".git", ".venv", "runs/one", "data", "prepared", "tests", "blitz/__pycache__", ".mypy_cache"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "large").write_bytes(bytes(1000))
    (tmp_path / "blitz" / "data").mkdir()
    (tmp_path / "blitz" / "data" / "digits.csv").write_bytes(bytes(100))
    return tmp_path


def test_code_is_uploaded_and_nothing_that_a_run_makes(project: Path) -> None:
    sizes, is_all = upload_sizes(project)
    assert is_all
    assert {name: size for name, size in sizes.items() if not name.startswith(".")} == {"blitz": 100}
    assert set(sizes) == {"blitz", ".gitignore", ".rayignore"}
    assert upload(project)[0].level == "ok"


def test_the_project_itself_is_small() -> None:
    sizes, is_all = upload_sizes(ROOT)
    assert is_all
    assert {"blitz", "jobs", "pyproject.toml"} <= set(sizes)
    assert sum(sizes.values()) < 3_000_000


def test_a_large_folder_is_named(project: Path) -> None:
    (project / "images").mkdir()
    with (project / "images" / "all.tar").open("wb") as file:
        file.truncate(60 << 20)
    (finding,) = upload(project)
    assert finding.level == "warning"
    assert finding.text.startswith("60.0 MiB would go with --working-dir . (images 60.0); name what no job reads")
