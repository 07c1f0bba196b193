"""Every block of docs/blitz.md, in its order: the code runs, and prints what the page shows."""

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blitz.cli import train

PAGE = (Path(__file__).parents[1] / "docs" / "blitz.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
"""Language and text of each."""


def is_recipe(language: str, text: str) -> bool:
    return language == "python" and text.startswith('"""')


RECIPE = next(text for language, text in BLOCKS if is_recipe(language, text))
COMMANDS = [text for language, text in BLOCKS if language == "console"]


def test_the_code_prints_what_stands_beneath_it() -> None:
    names: dict[str, Any] = {}
    shown = [(code, beneath) for code, beneath in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True)]
    ran = 0
    for (language, code), (kind, expected) in shown:
        if language == "python" and not is_recipe(language, code):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, "docs/blitz.md", "exec"), names)
            assert kind == "text", code
            assert printed.getvalue() == expected, code
            ran += 1
    # What is neither code nor its output are the recipe and the two commands, which the other test runs.
    assert len(BLOCKS) == 2 * ran + 1 + len(COMMANDS)
    assert ran > 10


def metrics_in(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(val/\S+) +([\d.]+)(?: +[\d.]+)?$", text, re.MULTILINE)}


@pytest.fixture
def trained_as(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[str], str]]:
    """What a command of the page prints, in the folder of its recipe."""
    (tmp_path / "circle.py").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(command: str) -> str:
        prompt, program, name, *words = shlex.split(command.partition("\n")[0])
        assert (prompt, program, name) == ("$", "blitz", "train")
        train.main(words)
        return capsys.readouterr().out

    yield run
    del sys.modules["circle"]


def check(printed: str, shown: str) -> None:
    # Another CPU rounds otherwise, and may take some of the 2,000 points for the other class.
    assert metrics_in(printed) == pytest.approx(metrics_in(shown), abs=0.02)
    assert len(metrics_in(shown)) == 6
    ends = [re.findall(r"^(\d+ steps), .*rows_digest (\w+)$", text, re.MULTILINE) for text in (printed, *COMMANDS)]
    assert ends[0] == ends[1] == ends[2] != []


def test_the_recipe_trains_in_this_process_as_shown(trained_as: Callable[[str], str]) -> None:
    check(trained_as(COMMANDS[0]), COMMANDS[0])


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_the_recipe_trains_on_two_workers_as_shown(trained_as: Callable[[str], str]) -> None:
    check(trained_as(COMMANDS[1]), COMMANDS[1])
