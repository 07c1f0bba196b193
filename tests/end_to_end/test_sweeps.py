"""Sweeps that are killed with SIGKILL, or stopped by Ctrl-C, and resume."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from blitz.cli import tune
from blitz.run_files.directory import RunDirectory
from tests.cli.test_tune import rows_of, without_seconds
from tests.running import losses, same_bits, weights
from tests.waiting import wait_until

FLAGS = ["optimizers", "--epochs", "20", "--num-trials", "6", "--scale.num-workers", "0", "--no-report"]
ALONE = [*FLAGS, "--packed", "no", "--scheduler", "asha"]
PACKED = [*FLAGS, "--packed", "3", "--scheduler", "asha"]


def start(words: list[str], folder: Path, run: str, env: Mapping[str, str] = os.environ) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs.tune", *words, "--storage", str(folder), "--run", run]
    # A session of its own, because Ctrl-C goes to all processes of a terminal.
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    wait_until(lambda: file.exists() and file.stat().st_size, process=process, every=0.002)


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        # In the middle of the fourth trial; when the second pack has begun.
        pytest.param(ALONE, "0003/metrics.jsonl", id="alone"),
        pytest.param(PACKED, "0005/trial.json", id="packed"),
    ],
)
def test_a_killed_sweep_resumes_to_the_same_best_trial(words: list[str], sign: str, tmp_path: Path) -> None:
    process = start(words, tmp_path, "killed")
    wait_for(tmp_path / "killed" / "trials" / sign, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "pictures").exists()
    for run in ("killed", "whole"):
        tune.main([*words, "--storage", str(tmp_path), "--run", run])
    assert without_seconds(rows_of(tmp_path / "killed")) == without_seconds(rows_of(tmp_path / "whole"))
    killed, whole = (RunDirectory.of(str(tmp_path / run), "best") for run in ("killed", "whole"))
    assert killed.read_json("trial.json")["draw"] == whole.read_json("trial.json")["draw"]  # type: ignore[index]
    assert losses(killed) == losses(whole)
    assert same_bits(weights(killed), weights(whole))


def test_ctrl_c_ends_a_sweep_in_one_line(tmp_path: Path) -> None:
    process = start(ALONE, tmp_path, "stopped")
    wait_for(tmp_path / "stopped" / "trials" / "0001" / "metrics.jsonl", process)
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate()
    assert process.returncode == 130
    assert printed == "interrupted; the same command continues from the last checkpoint\n"
    rows = rows_of(tmp_path / "stopped")
    assert [row["state"] for row in rows] == ["finished", "running"]
