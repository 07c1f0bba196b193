"""Every command that README and the guides show is run: here, page by page, or by the test that is named."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest

from blitz.errors import UserError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"```(?:bash|console)\n(.*?)```", re.DOTALL)
_STARTS = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:python|blitz|timeout|ray|make|pip|tensorboard|source|head|cat|echo|aws|export)\b"
)

ELSEWHERE = {
    "ray job": "tests/end_to_end/test_submit.py",
    "ray start": "tests/end_to_end/test_submit.py",
    "ray stop": "tests/end_to_end/test_submit.py",
    "RAY_ADDRESS=auto": "tests/end_to_end/test_submit.py",
    "export RAY_API_SERVER_ADDRESS": "tests/end_to_end/test_submit.py",
    "blitz doctor": "tests/cli/test_doctor.py",
    "blitz runs": "tests/cli/test_runs.py",
    "blitz train mine": "tests/training/test_failures.py",
    "blitz train circle": "tests/test_blitz_page.py",
    "blitz train digits --storage 's3:": "tests/end_to_end/test_storage.py",
    "timeout 15 blitz train": "tests/end_to_end/test_kills.py",
    "blitz train cifar10 --scale.num-workers 4 --scale.use-gpu yes": "tests/end_to_end/test_autoscaler.py",
    "python docs/deploy/": "tests/test_export.py",
    "blitz predict cars": "tests/test_table_csv_explained.py",
    "blitz train finetune": "tests/test_finetune.py",
    "blitz train lenet --data.root mnist --init-from": "tests/training/test_initial_weights.py",
    "blitz train digits --init-from": "tests/training/test_initial_weights.py",
    "blitz train translate": "tests/test_translate.py",
    "blitz evaluate en-de": "tests/test_translate.py",
    "blitz predict en-de": "tests/test_translate.py",
    "blitz export en-de": "tests/test_translate.py",
    "blitz train digits --track": "tests/trackers/test_exactly_once.py",
    "blitz tune optimizers --track": "tests/trackers/test_exactly_once.py",
    "printf ": "tests/test_translate.py",
    "make ": "Makefile",
}
"""What begins so needs a cluster, a server or a time limit; the test that gives it one."""
NOT_OURS = ("pip install tensorboard", "pip install 'blitz[", "tensorboard ", "head ", "source ")

NAMES = {"RUN", "OTHER", "THIRD"}
"""Runs of the reader's own."""

CUT = {
    "cifar10": "--max-steps 4 --max-train-rows 64 --max-eval-rows 64",
    "mnist": "--max-steps 4 --max-train-rows 64 --max-eval-rows 64",
    "optimizers": "--num-trials 4",
    "image_csv": "--max-steps 2 --max-eval-rows 8",
}
"""What takes minutes runs for some steps."""


def commands_of(page: Path) -> list[tuple[str, bool]]:
    """The commands of a page in their order, and whether each is shown to end with an error."""
    found = []
    for block in _FENCE.findall(page.read_text()):
        lines = block.replace("\\\n", " ").splitlines()
        prompts = any(line.startswith("$ ") for line in lines)
        for index, line in enumerate(lines):
            command = line.removeprefix("$ ")
            if line.startswith("$ ") if prompts else _STARTS.match(command):
                after = lines[index + 1] if prompts and index + 1 < len(lines) else ""
                # From a checkout, `python -m jobs.train` is the same.
                command = " ".join(command.split()).replace("python -m jobs.", "blitz ")
                found.append((command, after.startswith(("error:", "failed:"))))
    return found


def runs_here(command: str) -> bool:
    return not command.startswith((*ELSEWHERE, *NOT_OURS))


RUN_HERE = [page for page in PAGES if any(runs_here(command) for command, _ in commands_of(page))]


@pytest.fixture
def folder(test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the reader of a guide has: his files, and the recipe that another guide has made."""
    shutil.copy(test_data / "tabular" / "titanic.csv", tmp_path)
    (tmp_path / "people.csv").write_text("name,age,group\nann,31,a\nbob,abc,b\ncyd,52,a\ndan,42,\n")
    insects = tmp_path / "insects"
    insects.mkdir()
    pictures = sorted((test_data / "hymenoptera_data" / "train").glob("*/*.jpg"))[::20]
    lines = ["file,insect"]
    for each in pictures:
        shutil.copy(each, insects)
        lines.append(f"{each.name},{each.parent.name}")
    (insects / "insects.csv").write_text("\n".join([*lines, ""]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_HERE, ids=[page.name for page in RUN_HERE])
def test_every_command_of_a_page_does_what_it_says(page: Path, folder: Path, test_data: Path, mnist_root: Path) -> None:
    train = importlib.import_module("blitz.cli.train").main
    for name in NAMES & set(page.read_text().split()):
        train(["digits", "--epochs", "1", "--scale.num-workers", "0", "--run", name])
    for command, fails in commands_of(page):
        if not runs_here(command):
            continue
        program, name, *words = shlex.split(command, comments=True)
        assert program == "blitz", command
        data = mnist_root if "mnist" in words else test_data
        words = [str(data) if word == "DIR" else word for word in words]
        words += shlex.split(CUT.get(words[0], "")) if words else []
        if name == "train":
            words += ["--scale.num-workers", "0"]
        main = importlib.import_module(f"blitz.cli.{name}").main
        if fails or "people.csv" in words:
            with pytest.raises(UserError):
                main(words)
        else:
            main(words)


def test_what_is_run_elsewhere_is_run_there() -> None:
    shown = [command for page in PAGES for command, _ in commands_of(page)]
    for start, test in ELSEWHERE.items():
        assert (ROOT / test).exists(), test
        assert any(command.startswith(start) for command in shown), start
