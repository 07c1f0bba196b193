"""The `blitz` command: what it finds, what it refuses, and that `python -m` runs the same."""

import contextlib
import os
import signal
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

from blitz.cli import main as entry

ROOT = Path(__file__).parents[2]


def called(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["blitz", *words])
    with pytest.raises(SystemExit) as leaving:
        entry.main()
    return int(leaving.value.code or 0)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_it_lists_the_commands(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(*words, monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: blitz COMMAND")
    assert [line.split()[0] for line in printed.splitlines()[2:]] == list(entry.COMMANDS)


def test_every_command_has_a_module_and_a_job_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    modules = {path.stem for path in (ROOT / "blitz" / "cli").glob("*.py")}
    assert modules >= {*entry.COMMANDS}
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"} == {*entry.COMMANDS} - {"init"}
    for name in entry.COMMANDS:
        with contextlib.suppress(SystemExit):
            import_module(f"blitz.cli.{name}").main(["--help"])
        assert f"blitz {name}" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("--version", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"blitz {metadata.version('blitz')}\n"


def test_an_unknown_command_is_one_line_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("trian", monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there is no command 'trian'; perhaps train; there are init, train, tune, ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["blitz", "train"], ["jobs.train"]])
def test_python_runs_the_same_as_a_module(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", *words, "nosuch"]
    # `jobs` is not installed: it is there in a checkout.
    folder = tmp_path if words[0] == "blitz" else Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no recipe 'nosuch'")


def test_importing_the_jobs_does_nothing_else() -> None:
    code = "import sys; before = sys.excepthook; import jobs, jobs.train; assert sys.excepthook is before"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ctrl_c_while_a_command_is_imported_is_one_line(tmp_path: Path) -> None:
    # Stands for torch, whose import takes seconds: it says when it has begun, and goes on until it is interrupted. In
    # one long wait it would miss a signal that comes just before.
    forever = "import time\nprint('importing', flush=True)\nwhile True:\n    time.sleep(0.01)\n"
    (tmp_path / "torch.py").write_text(forever)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "blitz", "train", "digits"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted\n")
