"""A tracker that does not answer, and one that is not installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from blitz import extras
from blitz.api.train_run import TrainSettings, train_run
from blitz.errors import UserError
from blitz.launch.scale import Scale
from blitz.recipes.parabola import Parabola
from tests.trackers.stores import in_mlflow

HERE = Scale(num_workers=0)


@pytest.mark.slow
def test_a_tracker_that_is_down_is_reported_once_and_caught_up_at_the_next_start(
    tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(Parabola(epochs=2), storage=str(tmp_path), run="down", track=("mlflow",), scale=HERE)
    # Nothing listens on the port of the discard service.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said: list[str] = []
    trained = train_run(settings, say=said.append)
    about = [line for line in said if line.startswith("mlflow")]
    assert len(about) == 2
    assert "training continues" in about[0]
    assert about[1] == "mlflow does not have everything yet; the same command sends the rest"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    said.clear()
    train_run(settings, say=said.append)
    train_run(settings, say=said.append)
    assert not [line for line in said if line.startswith("mlflow")]
    (stored,) = [one for one in in_mlflow(mlflow_uri) if one.name == "down"]
    steps = [line["step"] for line in trained.run.metrics()]
    assert sorted(step for step, name, _ in stored.logged.elements() if name == "epoch") == sorted(set(steps))
    assert stored.state == "FINISHED"


@pytest.mark.parametrize(
    ("name", "module"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("trackio", "trackio"), ("comet", "comet_ml")]
)
def test_a_client_that_is_not_installed_is_one_line(name: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda wanted: None if wanted == module else find_spec(wanted))
    with pytest.raises(UserError, match=rf"--track {name} needs {module}.*pip install 'blitz\[{name}\]'"):
        TrainSettings(Parabola(), track=(name,))


def test_no_client_is_imported_unless_asked() -> None:
    # Not comet_ml: tensorboardX imports it wherever it is installed.
    program = "import blitz.cli.train, blitz.cli.tune, sys; print({'wandb', 'mlflow', 'trackio'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"
