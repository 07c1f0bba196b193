"""What is not installed is named with its `pip install` line, where it is first needed, and nothing else needs it."""

import json
import subprocess
import sys

import pytest

EXTRAS = [
    "matplotlib",
    "optuna",
    "rich",
    "tokenizers",
    "sacrebleu",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "vl_convert",
    "jinja2",
]

_WITHOUT = """
import contextlib, io, json, sys

missing, commands = json.loads(sys.argv[1])

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in missing else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
from blitz.cli.main import run_command

for words in commands:
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_command(words[0], words[1:])
        except SystemExit as leaving:
            code = leaving.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
assert not set(sys.modules) & set(missing)
"""
"""Runs commands in a process where some modules cannot be imported."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """The exit code, the output and the errors of each command."""
    folder = tmp_path_factory.mktemp("extras")
    for split in ("train", "val"):
        for language in ("en", "de"):
            (folder / f"{split}.{language}").write_text("a man\n" * 8)
    here = ["--scale.num-workers", "0", "--storage", str(folder)]
    run = str(folder / "one")
    commands = {
        "train": ["train", "digits", "--max-steps", "2", "--max-eval-rows", "8", "--run", "one", *here],
        "picture": ["train", "parabola", "--max-steps", "2", "--run", "two", "--no-report", *here],
        "evaluate": ["evaluate", str(folder / "two"), "--scale.num-workers", "0"],
        "report": ["report", run],
        "tune": ["tune", "optimizers", "--num-trials", "1", *here],
        "text": ["train", "translate", "--data.root", str(folder), *here],
        "onnx": ["export", run, "--format", "onnx"],
        "state_dict": ["export", run, "--format", "state_dict"],
    }
    words = json.dumps([EXTRAS, list(commands.values())])
    ran = subprocess.run([sys.executable, "-c", _WITHOUT, words], capture_output=True, text=True, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return dict(zip(commands, map(json.loads, ran.stdout.splitlines()), strict=True))


def test_training_needs_no_extra_and_names_that_of_the_report(done: dict[str, tuple[int, str, str]]) -> None:
    code, out, err = done["train"]
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if "pip install" in line]
    assert line.startswith("no report was written (a report needs jinja2, which is not installed: ")
    assert "pip install 'blitz[report]'" in line


@pytest.mark.parametrize("name", ["picture", "evaluate"])
def test_a_run_whose_recipe_draws_a_picture_does_without(name: str, done: dict[str, tuple[int, str, str]]) -> None:
    code, out, err = done[name]
    assert code == 0
    assert "a picture needs matplotlib, which is not installed: pip install 'blitz[report]'\n" in out + err


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("report", "a report needs jinja2, which is not installed: pip install 'blitz[report]'"),
        ("tune", "a sweep needs optuna, rich, matplotlib, which are not installed: pip install 'blitz[sweeps]'"),
        ("text", "a vocabulary of byte pairs needs tokenizers, which is not installed: pip install 'blitz[text]'"),
        (
            "onnx",
            "--format onnx needs onnx, onnxscript, onnxruntime, which are not installed: pip install 'blitz[export]'",
        ),
    ],
)
def test_what_cannot_do_without_is_refused_in_one_line(
    name: str, line: str, done: dict[str, tuple[int, str, str]]
) -> None:
    code, _, err = done[name]
    assert (code, err) == (2, f"error: {line}\n")


def test_exports_of_torch_alone_need_no_extra(done: dict[str, tuple[int, str, str]]) -> None:
    assert done["state_dict"][0] == 0
