"""Which names runs may have, and that all commands mean the same run by one."""

import re
import sys
from pathlib import Path

import pytest

from blitz.api.train_run import TrainSettings
from blitz.api.tune_space import TuneSettings
from blitz.cli import evaluate, export, report, runs, train
from blitz.cli.command_line import run
from blitz.errors import UserError
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import open_run
from tests.object_store import uri_of

REFUSED = [
    *("", ".", "..", "a/b", "/a", "-x", "--help", "~", "~root", ".hidden", "a.", "a ", " a", "a b", "a?b", "a#b"),
    *("50%", "a%20b", "*", "a:b", "a\\b", "a\nb", "a\tb", "a\n", "a\x1b[2J", "a\u202eb", "x" * 300, "'a'", "$HOME"),
    # Two ways to write one name, of which some file systems make one; and letters that look like others.
    *("\u00fcn\u00ef", "u\u0308n\u0131\u0308", "\u0430", "\uff1d"),
]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("settings", [TrainSettings, TuneSettings])
def test_a_name_that_would_not_mean_one_directory_everywhere_is_refused(settings: type, name: str) -> None:
    with pytest.raises(UserError, match=r"^--run ") as refused:
        settings(Digits(), run=name)
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("name", ["a", "A-1", "2024-05-01_lr=0.1,wd=1e-3", "a.b", "_x", "user@host", "a+b", "x" * 128])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert TrainSettings(Digits(), run=name).run == name


def test_a_refused_name_ends_a_command_in_one_line_and_makes_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "digits", "--run", "a?b"])
    with pytest.raises(SystemExit) as left:
        run(train.main, sys.argv[1:])
    assert left.value.code == 2
    assert re.fullmatch(r"error: --run is 'a\?b'; a name starts with [^\n]*\n", capsys.readouterr().err)
    assert [*tmp_path.iterdir()] == []


def test_two_runs_whose_names_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    first = open_run(Digits(), storage=str(tmp_path), run="Mine", resume="auto")
    first.write_json("recipe.json", {})
    for storage in (str(tmp_path), tmp_path.as_uri()):
        with pytest.raises(UserError, match="--run is 'mine', and there is a run 'Mine' in that storage"):
            open_run(Digits(), storage=storage, run="mine", resume="auto")
    assert open_run(Digits(), storage=str(tmp_path), run="Mine", resume="auto").uri == first.uri


@pytest.mark.parametrize("folder", ["a?b", "a#b", "50% of a%20b", "~", "ünï", "*"])
@pytest.mark.parametrize("kind", ["path", "file", "s3"])
def test_a_storage_of_any_name_holds_its_runs_apart(
    folder: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "s3":
        base = uri_of(request.getfixturevalue("s3_port"), tmp_path.name)
    else:
        base = str(tmp_path) if kind == "path" else tmp_path.as_uri()
    storage = RunDirectory.of(base, folder).uri
    for name in ("a", "b"):
        made = open_run(Digits(), storage=storage, run=name, resume="auto")
        made.write("name", name.encode())
        assert (made.name, RunDirectory.find(made.uri).read("name")) == (name, name.encode())
    found = RunDirectory.of(base)
    assert found.names() == [folder]
    assert sorted(found.paths()) == [f"{folder}/a/name", f"{folder}/b/name"]


def test_a_storage_that_no_disk_can_have_is_refused_by_its_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for storage in (tmp_path / ("x" * 300), tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"^--storage: "):
            open_run(Digits(), storage=str(storage), run="a", resume="auto")


def test_all_commands_find_the_run_by_path_and_by_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / "a?b #1%41"
    words = ["digits", "--max-train-rows", "64", "--max-eval-rows", "32", "--max-steps", "2", "--run", "a=1"]
    train.main([*words, "--storage", "a?b #1%41"])
    # The same run by the other name of its storage: nothing is left to train.
    train.main([*words, "--storage", storage.as_uri()])
    assert "It is finished" in capsys.readouterr().out
    runs.main(["--storage", storage.as_uri()])
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["a=1", "finished", "2/2"]
    for name in ("a?b #1%41/a=1", RunDirectory.of(storage.as_uri(), "a=1").uri):
        evaluate.main([name, "--scale.num-workers", "0"])
        report.main([name, "--out", "a#b.html"])
        export.main([name, "--format", "state_dict", "--output", "a?b.pt", "--overwrite"])
    assert {path.name for path in tmp_path.iterdir()} == {storage.name, "a#b.html", "a?b.pt"}
    assert [path.name for path in storage.iterdir()] == ["a=1"]
    assert "<title>a=1" in (tmp_path / "a#b.html").read_text()
