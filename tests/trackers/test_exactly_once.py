"""A run and a sweep in the real stores of all four trackers, where the run is killed with SIGKILL in between."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blitz.run_files.directory import RunDirectory
from tests.trackers.stores import Stored, in_comet, in_mlflow, in_trackio, in_wandb
from tests.waiting import wait_until

CLIENTS = {"mlflow": "mlflow", "wandb": "wandb", "trackio": "trackio", "comet": "comet_ml"}
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

for client in CLIENTS.values():
    pytest.importorskip(client)


@dataclass(frozen=True)
class Stores:
    """A folder whose run and sweep are tracked in stores of its own."""

    folder: Path
    mlflow: str

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MLFLOW_TRACKING_URI": self.mlflow,
            "WANDB_MODE": "offline",
            "WANDB_DIR": str(self.folder),
            "TRACKIO_DIR": str(self.folder / "trackio"),
            "COMET_OFFLINE_DIRECTORY": str(self.folder / "comet"),
        }

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", *words, "--scale.num-workers", "0", "--track", *CLIENTS]
        return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE)

    def finish(self, *words: str) -> str:
        with self.start(*words) as process:
            output, _ = process.communicate()
        assert process.returncode == 0
        return output.decode()

    def of(self, tracker: str) -> list[Stored]:
        look: dict[str, Callable[[], list[Stored]]] = {
            "mlflow": lambda: in_mlflow(self.mlflow),
            "wandb": lambda: in_wandb(self.folder),
            "trackio": lambda: in_trackio(self.folder / "trackio"),
            "comet": lambda: in_comet(self.folder / "comet"),
        }
        return look[tracker]()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Stores:
    return Stores(tmp_path_factory.mktemp("tracked"), mlflow_uri)


TRAIN = shlex.split(
    "jobs.train digits --run killed --evaluate-every-steps 100 --log-every-steps 5 --optim.schedule constant"
    " --optim.warmup-steps 0"
)


def marks(run: RunDirectory) -> list[dict[str, Any]]:
    found = [run.read_json(f"trackers/{name}.json") for name in CLIENTS]
    return [mark for mark in found if mark is not None]


@pytest.fixture(scope="module")
def killed(stores: Stores) -> RunDirectory:
    """A run that was killed after steps beyond its newest checkpoint had been sent, and that finished then.

    It was killed between the tracker's answer and the mark that says so: the mark is put back to what it is then.
    """
    run = RunDirectory.of(str(stores.folder / "runs" / "killed"))
    with stores.start(*TRAIN, "--epochs", "1000") as process:
        wait_until(lambda: sent_beyond_checkpoint(run), process=process)
        process.send_signal(signal.SIGKILL)
    reached = run.metrics()[-1]["step"]
    for name in CLIENTS:
        mark = run.read_json(f"trackers/{name}.json")
        assert mark is not None
        last = mark["sending"] or mark["step"]
        run.write_json(f"trackers/{name}.json", {**mark, "step": 0, "sending": last})
    stores.finish(*TRAIN, "--max-steps", str(reached + 50), "--epochs", "1000")
    return run


def sent_beyond_checkpoint(run: RunDirectory) -> bool:
    steps = run.checkpoint_steps()
    found = {mark["step"] for mark in marks(run)} if len(marks(run)) == len(CLIENTS) else set()
    return bool(steps) and bool(found) and min(found) > 0 and max(found) > steps[-1]


@pytest.mark.parametrize("tracker", CLIENTS)
def test_each_step_is_in_the_store_once_after_a_kill_and_a_resume(
    tracker: str, killed: RunDirectory, stores: Stores
) -> None:
    (stored,) = [one for one in stores.of(tracker) if one.name.startswith("killed")]
    assert [event["what"] for event in killed.events()] == ["started", "resumed", "finished"]
    expected: Counter[tuple[int, str]] = Counter()
    values: dict[tuple[int, str], float] = {}
    for line in killed.metrics():
        for name, value in line.items():
            if name != "step":
                # A step that is logged and evaluated has one epoch.
                expected[line["step"], name] = 1
                values[line["step"], name] = value
    assert Counter((step, name) for step, name, _ in stored.logged.elements()) == expected
    repeated = {(step, name): value for step, name, value in stored.logged if "second" not in name}
    assert repeated == {key: pytest.approx(values[key], rel=1e-6) for key in repeated}


@pytest.mark.parametrize("tracker", CLIENTS)
def test_settings_and_report_and_the_best_checkpoint_are_there(
    tracker: str, killed: RunDirectory, stores: Stores
) -> None:
    (stored,) = [one for one in stores.of(tracker) if one.name.startswith("killed")]
    assert json.loads(str(stored.config["optim.lr"])) == 0.003
    result = killed.read_json("result.json")
    assert result is not None
    assert stored.summary["best_checkpoint"] == f"{killed}/checkpoints/{result['best_checkpoint']}"
    assert stored.files >= {"report.html", "events.jsonl", "recipe.json"}
    if tracker == "mlflow":
        assert stored.state == "FINISHED"


@pytest.fixture(scope="module")
def swept(stores: Stores) -> RunDirectory:
    """A sweep of two trials."""
    stores.finish(*shlex.split("jobs.tune optimizers --run swept --epochs 2 --num-trials 2"))
    return RunDirectory.of(str(stores.folder / "runs" / "swept"))


@pytest.mark.parametrize("tracker", CLIENTS)
def test_the_trials_of_a_sweep_are_a_group_of_runs(tracker: str, swept: RunDirectory, stores: Stores) -> None:
    trials = sorted((one for one in stores.of(tracker) if one.name.startswith("swept-")), key=lambda one: one.name)
    assert [one.name[:10] for one in trials] == ["swept-0000", "swept-0001"]
    for number, stored in enumerate(trials):
        assert stored.group == "swept"
        run = RunDirectory.of(swept.uri, f"trials/{number:04}")
        expected = {(line["step"], name): 1 for line in run.metrics() for name in line if name != "step"}
        assert Counter((step, name) for step, name, _ in stored.logged.elements()) == Counter(expected)
    if tracker == "mlflow":
        (parent,) = [one for one in stores.of(tracker) if one.name == "swept"]
        assert {"report.html", "trials.csv"} <= parent.files
        assert parent.summary["best_checkpoint"].startswith(f"{swept}/best/checkpoints/")
