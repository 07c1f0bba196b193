"""What `--help` of every command shows: each flag explained, each group by what it is, and no internal comment."""

import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import blitz
from blitz.api.train_run import TrainSettings
from blitz.api.tune_space import TuneSettings
from blitz.cli import doctor, evaluate, export, init, predict, prepare, report, runs, train, tune
from blitz.recipes import find_recipe, recipe_names, recipe_to_json
from tune_spaces import find_space, space_names

CHECKOUT = Path(blitz.__file__).parents[1]
CODE = [file for folder in ("blitz", "jobs", "tune_spaces") for file in (CHECKOUT / folder).rglob("*.py")]
FEWEST_CHARACTERS = 20
"""Of a comment that is looked for in a help: a shorter one might stand there by chance."""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _comments() -> Iterator[str]:
    """Every comment of the code, consecutive lines joined as tyro joins them."""
    for file in CODE:
        block, last = "", -1
        for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
            if token.type == tokenize.COMMENT:
                line = token.start[0]
                if line != last + 1:
                    yield block
                    block = ""
                block, last = f"{block} {token.string.lstrip('#: ')}", line
        yield block


COMMENTS = [text for comment in _comments() if len(text := _one_line(comment)) >= FEWEST_CHARACTERS]


class Help:
    """A help as tyro prints it where it draws no frames: flags, and groups with a title and a line below it."""

    def __init__(self, text: str) -> None:
        # Frames are drawn by the encoding of standard output, which is pytest's here.
        lines = [line.strip(" │╭╮╰╯").replace("─", "-") for line in text.splitlines()]
        self.text = _one_line(" ".join(lines))
        self.groups: dict[str, str] = {}
        self.flags: dict[str, str] = {}
        group, flag = "", ""
        for line in lines:
            if title := re.fullmatch(r"[- ]*(\w*) ?options[- ]*", line):
                group, flag = title[1], ""
                self.groups[group] = ""
            elif not line.strip("- "):
                continue
            elif line.startswith("-"):
                # Where all flags are short, what they do stands beside them.
                flag, _, says = line.partition("  ")
                self.flags[flag] = says
            elif flag:
                self.flags[flag] += f" {line}"
            elif group:
                self.groups[group] += f" {line}"


@pytest.fixture
def help_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)

    def of(module: Any, *words: str) -> Help:
        with pytest.raises(SystemExit) as leaving:
            module.main([*words, "--help"])
        assert not leaving.value.code
        return Help(capsys.readouterr().out)

    return of


def check(shown: Help, groups: dict[str, object]) -> None:
    """Each flag has a description, each group that of the settings in it, and no comment of the code is shown."""
    assert shown.flags
    # Of the default alone, which tyro adds, nobody learns what a flag does.
    unexplained = [
        flag for flag, says in shown.flags.items() if not re.sub(r"\((default|required).*", "", says).strip()
    ]
    assert unexplained == []
    assert {name: _one_line(says) for name, says in shown.groups.items() if name} == {
        name: _one_line(type(settings).__doc__ or "nothing") for name, settings in groups.items()
    }
    assert [comment for comment in COMMENTS if comment in shown.text] == []


def groups_of(recipe: Any) -> dict[str, object]:
    return {
        name: value
        for name in recipe.__dataclass_fields__
        if hasattr(value := getattr(recipe, name), "__dataclass_fields__")
    }


def a_run(folder: Path, recipe: str) -> str:
    """The directory of a run of which there is the recipe alone, which is all that a help reads."""
    made = find_recipe(recipe)()
    (folder / "run").mkdir()
    (folder / "run" / "recipe.json").write_text(json.dumps(recipe_to_json(made)))
    return str(folder / "run")


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_explains_its_flags_and_groups_and_shows_no_comment(
    recipe: str, help_of: Any, tmp_path: Path
) -> None:
    made = find_recipe(recipe)()
    settings = TrainSettings(made)
    beside = {"checkpoint": settings.checkpoint, "scale": settings.scale}
    for command in (train, doctor):
        check(help_of(command, recipe), {**groups_of(made), **beside})
    run = a_run(tmp_path, recipe)
    check(help_of(evaluate, run), {**groups_of(made), "scale": settings.scale})
    check(help_of(predict, run, "in.csv", "out.csv"), {**groups_of(made), "scale": settings.scale})
    check(help_of(export, run), groups_of(made))


@pytest.mark.parametrize("space", space_names())
def test_every_sweep_does_so(space: str, help_of: Any) -> None:
    settings = TuneSettings(find_space(space).base())
    check(help_of(tune, space), {**groups_of(settings.recipe), "scale": settings.scale})


def test_commands_without_a_recipe_do_so(help_of: Any) -> None:
    check(help_of(prepare, "a.csv"), {})
    check(help_of(init, "flowers"), {})
    check(help_of(runs), {})
    check(help_of(report), {})


def test_there_are_comments_to_look_for() -> None:
    assert len(COMMENTS) > 100
    assert any(comment.startswith("Two epochs at this constant rate") for comment in COMMENTS)
