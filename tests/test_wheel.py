"""The wheel, installed into an empty environment outside the tree, trains and makes projects by the `blitz` command."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IN_THE_WHEEL = ("blitz", "tune_spaces", "pyproject.toml", "README.md", "LICENSE")


def pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools leaves files beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "tree").mkdir()
    for name in IN_THE_WHEEL:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "tree" / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(folder / "tree"))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def blitz_command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that has the wheel, and finds its dependencies where this one has them."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    pip("--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    # A path alone: of what lies there no .pth is read, so that an editable install of this tree is not seen.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "blitz"


def run(command: Path, *words: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([command, *words], capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_what_it_needs_and_no_package_jobs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"blitz", "tune_spaces"}
    there = [path.relative_to(ROOT) for path in (ROOT / "blitz").rglob("*") if path.is_file()]
    kept = {str(path) for path in there if "__pycache__" not in path.parts}
    assert kept - {*names} == set()
    assert {name.rpartition("/")[2] for name in names} >= {"LICENSE", "digits.LICENSE.txt"}


@pytest.mark.slow
def test_digits_trains_from_it(blitz_command: Path, tmp_path: Path) -> None:
    run(blitz_command, "train", "digits", "--max-steps", "5", "--run", "one", "--scale.num-workers", "0", cwd=tmp_path)
    assert (tmp_path / "runs" / "one" / "result.json").exists()
    assert (tmp_path / "runs" / "one" / "report.html").exists()
    code = "import blitz; print(blitz.__file__)"
    where = run(blitz_command.with_name("python"), "-c", code, cwd=tmp_path)
    assert where.startswith(str(blitz_command.parents[1]))


@pytest.mark.slow
def test_a_project_is_made_and_trained_from_it(blitz_command: Path, tmp_path: Path) -> None:
    run(blitz_command, "init", "flowers", cwd=tmp_path)
    here = tmp_path / "flowers"
    run(blitz_command, "train", "flowers.py", "--run", "first", "--scale.num-workers", "0", "--no-report", cwd=here)
    assert (here / "runs" / "first" / "result.json").exists()
