"""`blitz init`: the project that it makes works at once, by the commands of its README."""

import importlib
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blitz.cli import init as command
from blitz.errors import UserError
from blitz.recipes import find_recipe
from blitz.recipes.table_csv import TableCsv

ROOT = Path(__file__).parents[2]
FILES = ["README.md", "cluster.yaml", "flowers.py", "pyproject.toml", "space.py", "test_flowers.py"]
SHORTER = {
    "train": ["--epochs", "2", "--scale.num-workers", "0", "--no-report"],
    "tune": ["--epochs", "1", "--scale.num-workers", "0", "--no-report"],
    "evaluate": ["--scale.num-workers", "0"],
    "export": [],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder; modules of the projects in it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def commands_of(project: Path) -> list[list[str]]:
    block = re.findall(r"```bash\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)[0]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def run_commands_of(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The five commands, with few steps."""
    monkeypatch.chdir(project)
    commands = commands_of(project)
    assert [words[:2] for words in commands[:4]] == [
        ["blitz", name] for name in ("train", "evaluate", "tune", "export")
    ]
    for _, name, *words in commands[:4]:
        words = ["2" if word == "8" else word for word in words]
        importlib.import_module(f"blitz.cli.{name}").main([*words, *SHORTER[name]])
    assert commands[4] == ["python", "-m", "pytest"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def titanic_like(file: Path) -> None:
    """Sixty passengers: numbers, categories, missing cells, names, a column that numbers the rows."""
    random = np.random.default_rng(0)
    lines = ["id,name,class,age,fare,survived"]
    for number in range(60):
        age = "" if number % 7 == 0 else f"{random.uniform(1, 70):.1f}"
        kind = ("First", "Second", "Third")[number % 3]
        name = "".join(random.choice([*string.ascii_letters], 30))
        lines.append(f"{number + 1},{name},{kind},{age},{random.uniform(5, 90):.2f},{int(random.random() < 0.4)}")
    file.write_text("\n".join([*lines, ""]))


@pytest.mark.slow
def test_the_commands_of_a_new_project_work_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command.main(["flowers"])
    assert sorted(path.name for path in (folder / "flowers").iterdir()) == FILES
    run_commands_of(folder / "flowers", monkeypatch)


@pytest.mark.slow
def test_the_commands_of_a_project_for_a_csv_work_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    titanic_like(folder / "people.csv")
    command.main(["flowers", "--from-csv", "people.csv"])
    assert 'learns "survived", the last column: --target names another\n' in capsys.readouterr().out
    run_commands_of(folder / "flowers", monkeypatch)


def recipe_of(folder: Path) -> TableCsv:
    recipe: Any = find_recipe(str(folder / "flowers" / "flowers.py"))()
    assert isinstance(recipe, TableCsv)
    return recipe


def test_the_recipe_says_how_each_column_of_the_csv_was_read(folder: Path) -> None:
    titanic_like(folder / "people.csv")
    command.main(["flowers", "--from-csv", "people.csv", "--target", "class"])
    text = (folder / "flowers" / "flowers.py").read_text()
    shown = {line.split()[1]: " ".join(line.split()[2:]) for line in text.splitlines() if line.startswith("#   ")}
    assert list(shown) == ["id", "name", "class", "age", "fare", "survived"]
    assert shown["id"].startswith("number 1 to 60, ")
    assert shown["id"].endswith("; ignored: it numbers the rows")
    assert shown["name"].startswith("text ")
    assert shown["class"] == "category 3: First, Second, Third; the target"
    assert shown["age"].endswith("; 9 missing")
    recipe = recipe_of(folder)
    assert (recipe.data.target, recipe.data.ignore) == ("class", ("id",))
    assert recipe.fitted().fit.target.classes == ("First", "Second", "Third")


def test_names_in_any_writing_become_a_recipe_that_reads_them(folder: Path) -> None:
    (folder / 'a "b".csv').write_text(
        '"n ""1""",back\\slash,größe\n' + "".join(f"{n % 4},{n},{n % 3}\n" for n in range(9))
    )
    command.main(["flowers", "--from-csv", 'a "b".csv'])
    recipe = recipe_of(folder)
    assert recipe.data.target == "größe"
    assert recipe.data.ignore == ("back\\slash",)
    assert recipe.fitted().fit.target.classes == ("0", "1", "2")


def test_bad_rows_are_left_out_and_said(folder: Path) -> None:
    titanic_like(folder / "people.csv")
    with (folder / "people.csv").open("a") as file:
        file.write("61,too,few\n")
    command.main(["flowers", "--from-csv", "people.csv"])
    assert "# 1 rows are bad" in (folder / "flowers" / "flowers.py").read_text()
    data = recipe_of(folder).data
    assert (data.bad_rows, data.max_bad_fraction) == ("skip", 0.02)
    replace(recipe_of(folder), data=data).fitted()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["2nd"], "'2nd' is no name for a project"),
        (["a/b"], "'a/b' is no name for a project"),
        (["torch"], "torch is the name of a Python module"),
        (["json"], "json is the name of a Python module"),
        (["class"], "class is the name of a Python module"),
        (["digits"], "digits is a recipe of blitz"),
        (["space"], "space is the name of another part of a project"),
        (["there"], "the folder there is not empty"),
        (["file"], "file is a file"),
        (["new", "--target", "x"], "--target names a column of --from-csv"),
        (["new", "--from-csv", "none.csv"], "none.csv"),
        (["new", "--from-csv", "t.csv", "--target", "x"], "--target: t.csv has no column 'x'; it has: a, b"),
        (["--target", "x"], "name the project first"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(words: list[str], message: str, folder: Path) -> None:
    (folder / "there").mkdir()
    (folder / "there" / "mine.txt").touch()
    (folder / "file").touch()
    (folder / "t.csv").write_text("a,b\n1,2\n")
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=re.escape(message)):
        command.main(words)
    assert sorted(folder.rglob("*")) == before


def test_an_empty_folder_may_be_there(folder: Path) -> None:
    (folder / "flowers").mkdir()
    command.main(["flowers"])
    assert (folder / "flowers" / "flowers.py").exists()


def test_its_cluster_is_the_one_of_this_repository_under_another_name(folder: Path) -> None:
    command.main(["my-flowers"])
    ours = (ROOT / "cluster.yaml").read_text()
    for before, after in {
        "cluster_name: blitz\n": "cluster_name: my-flowers\n",
        "container_name: blitz\n": "container_name: my-flowers\n",
        "/home/ray/blitz": "/home/ray/my-flowers",
    }.items():
        ours = ours.replace(before, after)
    assert (folder / "my-flowers" / "cluster.yaml").read_text() == ours
    assert (folder / "my-flowers" / "my_flowers.py").exists()
