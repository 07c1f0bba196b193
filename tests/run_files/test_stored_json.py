"""Damaged JSON in a run: it hides no other run, and each command names the file in one line."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from blitz.cli import command_line, evaluate, export, report, runs, train, tune
from blitz.errors import DamagedFile, UserError
from blitz.report.page import run_page, sweep_page
from blitz.report.record import read_record
from blitz.report.sweep_page import read_sweep
from blitz.run_files.directory import RunDirectory
from blitz.run_files.listing import list_runs
from blitz.run_files.open import stored_recipe
from blitz.run_files.sweep_directory import SweepDirectory
from tests.running import untimed

DIGITS = ["digits", "--epochs", "1", "--max-train-rows", "32", "--max-eval-rows", "10", "--log-every-steps", "1"]
HERE = ["--scale.num-workers", "0", "--scale.use-gpu", "no", "--no-report"]

NOT_JSON = {"empty": b"", "cut off": b'{"recipe": "di', "no text": b"\xff\xfe\x00", "NUL": bytes(40)}
OF_ANOTHER_SHAPE = {
    "a list": b"[1, 2]",
    "a number": b"5",
    "null": b"null",
    "no keys": b"{}",
    "deep": b"[" * 100_000,
    "long number": b"9" * 10_000,
    "NaN": b"NaN",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with two runs, one of which is evaluated, and a sweep."""
    storage = tmp_path_factory.mktemp("storage")
    train.main([*DIGITS, *HERE, "--storage", str(storage), "--run", "one"])
    evaluate.main([str(storage / "one"), "--scale.num-workers", "0", "--scale.use-gpu", "no"])
    shutil.copytree(storage / "one", storage / "other")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tune, "report_at_the_end", lambda *_, **__: None)
        words = [*DIGITS[1:], "--num-trials", "2", "--scale.num-workers", "0", "--packed", "no"]
        tune.main(["digits", *words, "--storage", str(storage), "--run", "sweep"])
    return storage


@pytest.fixture
def storage(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(made, tmp_path / "storage")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that is to end with code 2; the one line that it says."""

    def call(job: Any, *words: str) -> str:
        monkeypatch.setattr("sys.argv", ["job", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            command_line.run(job.main, list(words))
        said = capsys.readouterr().err
        assert leaving.value.code == 2, said
        assert said.count("\n") == 1
        return said

    return call


@pytest.mark.parametrize("damage", [*NOT_JSON.values(), *OF_ANOTHER_SHAPE.values()], ids=[*NOT_JSON, *OF_ANOTHER_SHAPE])
@pytest.mark.parametrize("file", ["one/recipe.json", "one/plan.json", "one/result.json", "sweep/sweep.json"])
def test_a_damaged_file_makes_its_run_damaged_and_hides_no_other(storage: Path, file: str, damage: bytes) -> None:
    (storage / file).write_bytes(damage)
    listed = {run.name: run for run in list_runs(str(storage))}
    name = file.split("/")[0]
    assert listed.keys() == {"one", "other", "sweep"}
    assert [run.name for run in listed.values() if run.state != "finished"] == [name]
    assert listed[name].state == "damaged"
    assert f"{storage}/{file} is damaged: " in listed[name].damage


@pytest.mark.parametrize("instead", ["nothing", "a dangling link", "a link out of the run", "a folder"])
def test_a_run_without_its_recipe_is_listed_as_damaged(storage: Path, instead: str) -> None:
    recipe = storage / "one" / "recipe.json"
    recipe.unlink()
    if instead == "a folder":
        recipe.mkdir()
    elif instead != "nothing":
        recipe.symlink_to("nothing.json" if instead == "a dangling link" else "../other/recipe.json")
    (storage / "no run").mkdir()
    listed = {run.name: run for run in list_runs(str(storage))}
    assert listed.keys() == {"one", "other", "sweep"}
    assert listed["one"].state == "damaged"
    assert f"{recipe} " in listed["one"].damage


@pytest.mark.parametrize("file", ["recipe.json", "result.json", "plan.json", "metrics.jsonl", "events.jsonl"])
def test_a_folder_instead_of_a_file_is_refused_in_one_line_by_every_command_that_reads_it(
    storage: Path, refused: Callable[..., str], file: str
) -> None:
    one = storage / "one"
    (one / file).unlink()
    (one / file).mkdir()
    words = [*DIGITS, *HERE, "--storage", str(storage), "--run", "one"]
    jobs: dict[str, list[Any]] = {
        "recipe.json": [(evaluate, [str(one)]), (export, [str(one)]), (report, [str(one)]), (train, words)],
        "result.json": [(report, [str(one)]), (train, words)],
        "plan.json": [(train, words)],
        "metrics.jsonl": [(report, [str(one)])],
        "events.jsonl": [(report, [str(one)])],
    }
    for job, given in jobs[file]:
        assert f"{one}/{file} cannot be " in refused(job, *given)


@pytest.mark.parametrize("line", ["5", "[]", '"text"', "{}", '{"step": "4"}', '{"step": 4, "val/loss": "low"}'])
def test_a_line_of_another_shape_is_named_with_its_number(
    storage: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = storage / "one" / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([*lines, line, lines[-1], ""]))
    capsys.readouterr()
    runs.main(["--storage", str(storage)])
    printed = capsys.readouterr().out
    assert f"\none: {metrics}:{len(lines) + 1} is damaged: " in printed
    assert "delete this line" in printed
    with pytest.raises(DamagedFile, match=rf"metrics\.jsonl:{len(lines) + 1} is damaged"):
        read_record(RunDirectory.of(str(storage), "one"))


def test_every_command_names_the_damaged_file_in_one_line(storage: Path, refused: Callable[..., str]) -> None:
    one, here = str(storage / "one"), ["--storage", str(storage), "--run"]
    (storage / "one" / "recipe.json").write_bytes(b"")
    for job, words in (
        (evaluate, [one]),
        (export, [one]),
        (report, [one]),
        (train, [*DIGITS, *HERE, *here, "one"]),
        (train, [*DIGITS, *HERE, *here, "new", "--init-from", one]),
    ):
        said = refused(job, *words)
        assert f"{one}/recipe.json is damaged: it is empty; restore it from a copy, or delete it" in said
    (storage / "sweep" / "sweep.json").write_bytes(b"5")
    words = [*DIGITS[1:], "--num-trials", "2", "--scale.num-workers", "0", *here, "sweep"]
    for job, given in ((report, [str(storage / "sweep")]), (tune, ["digits", *words])):
        assert f"{storage}/sweep/sweep.json is damaged: it is 5, where a JSON object" in refused(job, *given)
    (storage / "other" / "events.jsonl").write_text('{"what": "started", "time": 1e300}\n')
    assert "events.jsonl:1 is damaged: 'time' is 1e+300" in refused(report, str(storage / "other"))
    (storage / "other" / "result.json").write_text("[]")
    assert "result.json is damaged" in refused(train, *DIGITS, *HERE, *here, "other")


def test_what_is_said_to_delete_is_written_again(storage: Path) -> None:
    for file in ("recipe.json", "plan.json", "result.json"):
        before = json.loads((storage / "one" / file).read_text())
        (storage / "one" / file).unlink()
        train.main([*DIGITS, *HERE, "--storage", str(storage), "--run", "one"])
        assert untimed(json.loads((storage / "one" / file).read_text())) == untimed(before)


def test_settings_of_other_types_are_refused_where_the_recipe_is_built(storage: Path) -> None:
    run = RunDirectory.of(str(storage), "one")
    stored = json.loads(run.read("recipe.json"))
    for changed in ({"optim": 5}, {"seed": "0"}, {"epochs": [1]}, {"optim": {"lr": None}}, {"optim": {"betas": [1]}}):
        run.write("recipe.json", json.dumps({**stored, **changed}).encode())
        with pytest.raises(UserError, match=r"one/recipe\.json: "):
            stored_recipe(run)


def every_value(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from every_value(inner, (*path, key))


def with_value(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = with_value(value[path[0]], path[1:], new)
    return changed


@pytest.mark.parametrize(
    "file",
    [
        "one/recipe.json",
        "one/plan.json",
        "one/result.json",
        "one/evaluations/best.json",
        "one/metrics.jsonl",
        "one/events.jsonl",
        "sweep/sweep.json",
        "sweep/trials/0000/trial.json",
    ],
)
def test_a_value_of_another_type_anywhere_is_a_users_error_or_none(storage: Path, file: str) -> None:
    """Never a trace: whatever a file holds, reading it and making a page of it is done, or refused in one line."""
    target, draw = storage / file, random.Random(0)
    text = target.read_text()
    whole = json.loads(text.splitlines()[0] if file.endswith("l") else text)
    name = file.split("/")[0]
    run = RunDirectory.of(str(storage), name)
    paths = list(every_value(whole))
    others: list[Any] = [None, True, -1, 1e308, 10**30, "text", "", [], {}, [[]], {"a": []}]
    for _ in range(60):
        path = draw.choice(paths)
        changed = json.dumps(with_value(whole, path, draw.choice(others)))
        target.write_text(f"{changed}\n")
        assert {one.name for one in list_runs(str(storage))} >= {"one", "other", "sweep"} - {name}
        with suppress(UserError):
            if name == "sweep":
                sweep_page(read_sweep(run)).html()
                SweepDirectory(run).trials()
            else:
                run_page(read_record(run)).html()
                stored_recipe(run)
