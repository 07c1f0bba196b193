"""A program outside the cluster trains there by Ray Client, `address="ray://…"`: it is interrupted, and resumes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import blitz
from blitz.errors import UserError
from blitz.launch.cluster.head_node import check_address
from tests.clusters import TOKEN, Head
from tests.float64 import TOLERANCE
from tests.running import losses
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROGRAM = """
import sys
import blitz
import torch
from torch import nn
from wide import WIDTH

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        self.double()

class Points:
    def __init__(self, odd=None):
        self.odd = odd
    def __len__(self):
        return 60
    def __getitem__(self, row):
        if row == self.odd:
            raise LookupError(f"row {row} is odd")
        return torch.tensor([row, 1.0], dtype=torch.float64), torch.ones(1, dtype=torch.float64)

def train(odd=None, **settings):
    return blitz.train(
        model=Net, train=Points(odd), val=Points(), loss=nn.MSELoss(), report=False, global_batch_size=8,
        log_every_steps=1, checkpoint=blitz.Checkpoints(every_steps=5), **settings,
    )
"""
START = "from program import train; import sys; train(run='one', address=sys.argv[1], num_workers=2, epochs=500)"
RESUME = """
from program import train
from blitz.errors import UserError
import sys
try:
    train(odd=41, run="odd", address=sys.argv[1], num_workers=2)
except UserError as error:
    print(f"[{error}]")
train(run="one", address=sys.argv[1], num_workers=2, epochs=500, max_steps=int(sys.argv[2]))
train(run="alone", num_workers=0, epochs=500, max_steps=int(sys.argv[2]))
"""


def train_workers(head: Head) -> list[psutil.Process]:
    """Ray Train's workers and the driver on the head node."""
    found = []
    for process in head.process.children(recursive=True):
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "RayTrainWorker" in words or "ray::_train" in words:
            found.append(process)
    return found


def test_a_run_through_ray_client_is_interrupted_and_resumes(head: Head, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "wide.py").write_text("WIDTH = 4\n")
    login = {name: value for name, value in head.env.items() if name.startswith("RAY_AUTH")}
    env = {**os.environ, **login, "OMP_NUM_THREADS": "1"}
    metrics = tmp_path / "runs" / "one" / "metrics.jsonl"

    started = [sys.executable, "-c", START, head.client]
    with subprocess.Popen(started, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
        wait_until(
            lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= 10,
            process=program,
            says=lambda: program.communicate(timeout=5)[0].decode(),
        )
        assert train_workers(head)
        program.send_signal(signal.SIGINT)
        assert program.wait() != 0
    wait_until(lambda: not train_workers(head))
    reached = json.loads(metrics.read_bytes().splitlines()[-1])["step"]

    resumed = [sys.executable, "-c", RESUME, head.client, str(reached + 20)]
    done = subprocess.run(resumed, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[train=Points: row 41 cannot be read (program.py:20): LookupError: row 41 is odd]" in done.stdout
    one, alone = (blitz.open(tmp_path / "runs" / name, model=object) for name in ("one", "alone"))
    assert [event["what"] for event in one.directory.events()] == ["started", "resumed", "finished"]
    assert one.result is not None
    assert alone.result is not None
    assert one.result["rows_digest"] == alone.result["rows_digest"]
    assert losses(one.directory) == pytest.approx(losses(alone.directory), rel=TOLERANCE)


def test_an_address_that_is_not_ray_clients_is_explained(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    check_address(head.client)
    for wrong, says in (
        (f"ray://{head.address}", f"the head node itself; set it to {head.address}, without ray://"),
        (head.client.removeprefix("ray://"), f"Ray Client's server; set it to {head.client}"),
        (f"ray://{head.dashboard.removeprefix('http://')}", "not Ray Client's server; its port is 10001"),
    ):
        with pytest.raises(UserError, match=says):
            check_address(wrong)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN.upper())
    with pytest.raises(UserError, match="the token is not the one of that cluster"):
        check_address(head.client)
