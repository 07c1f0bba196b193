"""A project outside this tree, where blitz is installed from its wheel: recipes and spaces by file, module and entry
point, in one process, on two Ray workers, and submitted to a cluster of two nodes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from blitz.run_files.directory import RunDirectory
from tests.clusters import Head, blind_to, head_node, joined_node
from tests.object_store import uri_of
from tests.running import result
from tests.trackers.stores import in_mlflow, mlflow_server
from tests.wheels import Installed

pytestmark = [pytest.mark.slow]

SIZES = "WIDTH = 7\n"
RECIPE = '''
"""Petals of flowers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

import blitz
{import_sizes}


@dataclass(frozen=True)
class Flowers(blitz.Recipe):
    """Petals."""

    epochs: int = 2
    global_batch_size: int = 16
    width: int = WIDTH

    def dataset(self, split):
        inputs = np.random.default_rng(split == "val").normal(size=(64, 2)).astype(np.float32)
        return Petals(inputs=inputs, targets=inputs.sum(1, keepdims=True))

    def build_model(self):
        return nn.Sequential(nn.Linear(2, self.width), nn.ReLU(), nn.Linear(WIDTH, 1))

    def loss(self, outputs, batch):
        return (outputs - batch["targets"]).square().mean(1)


class Petals(blitz.ArrayDataset):
    """A data set of the project's own."""
'''
SPACE = '''
"""Learning rates of flowers."""

from ray import tune

import blitz
from {module} import Flowers

SPACE = blitz.Space(recipe=Flowers, parameters={{"optim.lr": tune.loguniform(1e-3, 1e-1)}}, num_trials=2)
'''
COMMANDS = """
import shlex, sys
from importlib import import_module

for line in sys.stdin:
    name, *words = shlex.split(line)
    try:
        import_module(f"blitz.cli.{name}").main(words)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""
PROGRAM = """
import blitz
import flowers

class Mine(flowers.Flowers):
    def build_model(self):
        return super().build_model()

run = blitz.train(Mine(), num_workers=2, address="{address}", run="from-python", storage="{storage}", report=False)
print(run.result["rows_digest"], sorted(run.directory.names("code")))
"""


def write_package(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    (folder / name / "sizes.py").write_text(SIZES)
    (folder / name / "flowers.py").write_text(RECIPE.format(import_sizes="from .sizes import WIDTH"))
    (folder / name / "space.py").write_text(SPACE.format(module=f"{name}.flowers"))


@pytest.fixture(scope="module")
def with_roses(installed: Installed) -> Installed:
    """The environment with a package that brings a recipe and a space by name, as pip leaves it."""
    write_package(installed.site_packages, "rose_garden")
    info = installed.site_packages / "rose_garden-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rose-garden\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[blitz.recipes]\nroses = rose_garden.flowers:Flowers\n[blitz.spaces]\nrose-rates = rose_garden.space:SPACE\n"
    )
    return installed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "sizes_of_flowers.py").write_text(SIZES)
    (folder / "flowers.py").write_text(RECIPE.format(import_sizes="from sizes_of_flowers import WIDTH"))
    (folder / "space.py").write_text(SPACE.format(module="flowers"))
    write_package(folder, "garden")
    # Not in the project: the folder of a program is on Python's path.
    (tmp_path / "commands.py").write_text(COMMANDS)
    return folder


def commands(installed: Installed, project: Path, *lines: str, **env: str) -> str:
    """What several commands print, one after another in one process."""
    program = str(project.parent / "commands.py")
    done = installed.run("python", program, cwd=project, stdin="\n".join(lines) + "\n", env=env)
    return done.stdout + done.stderr


def digest_of(project: Path, run: str) -> str:
    return str(result(RunDirectory.of(str(project / "runs"), run))["rows_digest"])


def test_recipes_and_spaces_by_file_module_and_entry_point(with_roses: Installed, project: Path) -> None:
    flags = "--scale.num-workers 0 --no-report"
    printed = commands(
        with_roses,
        project,
        f"train flowers.py {flags} --run file",
        f"train garden.flowers:Flowers {flags} --run module",
        f"train roses {flags} --run name",
        f"tune space.py {flags} --run sweep-of-file",
        f"tune garden.space {flags} --run sweep-of-module",
        f"tune rose-rates {flags} --run sweep-of-name",
        "evaluate runs/file --scale.num-workers 0",
        "export runs/module --format torch_export",
        "report runs/file",
        "runs",
        "doctor garden/flowers.py",
    )
    assert "Error" not in printed
    assert digest_of(project, "file") == digest_of(project, "module") == digest_of(project, "name")
    runs = project / "runs"
    assert json.loads((runs / "file" / "recipe.json").read_text())["recipe"] == "flowers.py:Flowers"
    assert json.loads((runs / "module" / "recipe.json").read_text())["recipe"] == "garden/flowers.py:Flowers"
    assert sorted(file.name for file in (runs / "file" / "code").iterdir()) == ["flowers.py", "sizes_of_flowers.py"]
    assert not (runs / "name" / "code").exists()
    assert (runs / "sweep-of-module" / "best" / "code" / "flowers.py").exists()
    assert "repeat it: blitz train flowers.py:Flowers --optim.lr" in printed
    assert "repeat it: blitz train garden/flowers.py:Flowers --optim.lr" in printed
    assert "flowers.py, sizes.py (" in printed
    assert "go to every worker of a run" in printed
    (elsewhere := project.parent / "elsewhere").mkdir()
    used = with_roses.run("blitz", "evaluate", str(runs / "file"), "--scale.num-workers", "0", cwd=elsewhere)
    assert used.stdout.startswith("step 8, 64 rows of val\n")


@pytest.mark.cluster
def test_a_users_run_is_tracked_from_this_process_and_from_two_workers(with_roses: Installed, project: Path) -> None:
    pytest.importorskip("mlflow")
    flags = "--no-report --log-every-steps 1 --track mlflow"
    with mlflow_server(project.parent / "mlflow") as uri:
        printed = commands(
            with_roses,
            project,
            f"train flowers.py --scale.num-workers 0 --run here {flags}",
            f"train flowers.py --scale.num-workers 2 --run workers {flags}",
            MLFLOW_TRACKING_URI=uri,
        )
        stored = in_mlflow(uri)
    assert "Error" not in printed
    assert digest_of(project, "here") == digest_of(project, "workers")
    for name in ("here", "workers"):
        (one,) = [one for one in stored if one.name.startswith(name)]
        lines = RunDirectory.of(str(project / "runs"), name).metrics()
        assert {(step, metric) for step, metric, _ in one.logged} == {
            (line["step"], metric) for line in lines for metric in line if metric != "step"
        }
        assert max(one.logged.values()) == 1
        assert (one.config["width"], one.state) == ("7", "FINISHED")
        assert one.summary["rows_digest"] == digest_of(project, name)


@pytest.fixture
def two_nodes(with_roses: Installed) -> Iterator[Head]:
    """A cluster of two nodes in the environment of the wheel, in which two workers of three CPUs need both."""
    with (
        head_node(bin=with_roses.bin, env={"PYTHONPATH": ""}) as head,
        joined_node(head, *blind_to(head.folder), cpus=4),
    ):
        yield head


@pytest.mark.cluster
def test_from_a_users_folder_to_a_cluster_of_two_nodes(
    with_roses: Installed, two_nodes: Head, project: Path, s3_port: int
) -> None:
    storage = uri_of(s3_port, project.parent.name)
    scale = "--scale.num-workers 2 --scale.cpus-per-worker 3 --no-report"
    words = ["blitz", "train", "flowers.py", *scale.split(), "--storage", storage, "--run", "submitted"]
    submit = ["--no-wait", "--submission-id", "flowers", "--working-dir", "."]
    two_nodes.ray("job", "submit", *submit, "--", *words, cwd=project)
    # Meanwhile, in this process.
    with_roses.run("blitz", "train", "flowers.py", "--scale.num-workers", "0", "--run", "alone", cwd=project)
    assert two_nodes.job_state_at_the_end("flowers") == "SUCCEEDED", two_nodes.ray("job", "logs", "flowers")
    submitted = RunDirectory.of(storage, "submitted")
    alone = digest_of(project, "alone")
    assert result(submitted)["rows_digest"] == alone
    assert sorted(submitted.names("code")) == ["flowers.py", "sizes_of_flowers.py"]

    program = PROGRAM.format(address=two_nodes.address, storage=storage)
    (project / "program.py").write_text(program)
    login = {name: value for name, value in two_nodes.env.items() if name.startswith("RAY_AUTH")}
    done = with_roses.run("python", "program.py", cwd=project, env=login)
    assert done.stdout.splitlines()[-1] == f"{alone} ['Mine.py', 'flowers.py', 'sizes_of_flowers.py']"
    printed = commands(
        with_roses,
        project,
        "train garden.flowers --scale.num-workers 2 --no-report --run module",
        "train roses --scale.num-workers 2 --no-report --run name",
        "tune garden/space.py --packed no --no-report --run trials",
        "tune space.py --no-report --run packed",
        **login,
        RAY_ADDRESS=two_nodes.address,
    )
    assert "Error" not in printed
    assert digest_of(project, "module") == digest_of(project, "name") == alone
    for run in ("trials", "packed"):
        trials = RunDirectory.of(str(project / "runs"), run).read_trials()
        assert [trial["state"] for trial in trials] == ["finished"] * 2
        best = json.loads((project / "runs" / run / "best" / "recipe.json").read_text())
        assert best["recipe"] == ("flowers.py:Flowers" if run == "packed" else "garden/flowers.py:Flowers")
