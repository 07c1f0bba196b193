"""Two predictions into one file at once, and cells that a spreadsheet would take for formulas."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from blitz.api.predict_rows import predict_csv
from blitz.data.csv.tabular import CsvRows
from blitz.data.plan import Plan
from blitz.errors import UserError
from blitz.launch.launch import launch
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.recipes.table_csv import TableCsv
from blitz.run_files.directory import RunDirectory
from blitz.storage import joined, locked, open_location
from blitz.training.prediction import PredictJob
from tests.cli.test_predict import read, stored, trained
from tests.object_store import uri_of
from tests.test_table_csv import numbers_and_colours, write
from tests.test_table_csv import recipe as table_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def colours(folder: Path) -> RunDirectory:
    csv = numbers_and_colours(folder / "train.csv")
    return trained(table_recipe(folder, csv, "colour", epochs=1, global_batch_size=50), folder)


@dataclass(frozen=True)
class _Gate:
    """Where a prediction waits once it has begun."""

    reached: threading.Event
    opened: threading.Event


_gate = _Gate(threading.Event(), threading.Event())


@dataclass(frozen=True)
class Waiting(TableCsv):
    """Predicts as any table, once the gate is open."""

    def inputs(self, csv: str) -> CsvRows:
        _gate.reached.set()
        assert _gate.opened.wait(60)
        return super().inputs(csv)


@pytest.fixture
def waiting(colours: RunDirectory) -> TableCsv:
    _gate.reached.clear()
    _gate.opened.clear()
    return Waiting(**vars(stored(colours).recipe))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_prediction_into_the_same_file_is_refused_until_the_first_has_ended(
    overwrite: bool, colours: RunDirectory, waiting: TableCsv, tmp_path: Path
) -> None:
    source, target = numbers_and_colours(tmp_path / "in.csv"), tmp_path / "out" / "out.csv"
    first, second = (replace(stored(colours), overwrite=overwrite) for _ in range(2))
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(predict_csv, colours, str(source), str(target), replace(first, recipe=waiting))
        assert _gate.reached.wait(60)
        with pytest.raises(UserError, match=r"another process is writing .*out\.csv; wait for it, or name another"):
            predict_csv(colours, str(source), str(target), second)
        _gate.opened.set()
        assert running.result() == (600, 0)
    assert len(read(target)) == 600
    # Neither a lock nor parts are left.
    assert [path.name for path in target.parent.iterdir()] == ["out.csv"]
    predict_csv(colours, str(source), str(target), replace(second, overwrite=True))


def test_two_predictions_into_one_object_are_both_whole(
    colours: RunDirectory, waiting: TableCsv, s3_port: int, tmp_path: Path
) -> None:
    source, target = numbers_and_colours(tmp_path / "in.csv"), uri_of(s3_port, f"{tmp_path.name}/out.csv")
    with ThreadPoolExecutor(1) as thread:
        slow = replace(stored(colours), recipe=waiting)
        running = thread.submit(predict_csv, colours, str(source), target, slow)
        assert _gate.reached.wait(60)
        assert predict_csv(colours, str(source), target, stored(colours)) == (600, 0)
        files, path = open_location(target)
        quick = files.open_input_file(path).read()
        _gate.opened.set()
        assert running.result() == (600, 0)
    assert files.open_input_file(path).read() == quick
    assert quick.count(b"\n") == 601


def test_a_prediction_whose_parts_another_process_has_deleted_writes_nothing(
    colours: RunDirectory, tmp_path: Path
) -> None:
    recipe = stored(colours).recipe
    rows = recipe.inputs(str(numbers_and_colours(tmp_path / "in.csv", rows=200)))
    plan = Plan.of_evaluation(rows=200, batch_size=50)
    job = PredictJob(recipe, plan, colours, colours.checkpoint_step("best"), RunDirectory.of(str(tmp_path), "parts"))
    job.resume("content")
    launch(job, {"val": rows}, Placement(Scale(num_workers=0)))
    assert sum(map(len, job.predictions())) == 200
    last = max(path for path in Path(job.parts.uri).glob("*.arrow"))
    last.unlink()
    with pytest.raises(UserError, match=r"parts lacks predictions: another process has written the same file"):
        list(job.predictions())


def test_a_folder_that_cannot_be_written_is_named_by_the_file_and_not_by_a_flag(
    colours: RunDirectory, tmp_path: Path
) -> None:
    source = numbers_and_colours(tmp_path / "in.csv", rows=10)
    with pytest.raises(UserError, match=r"in\.csv/out\.csv cannot be written; name a file in a folder that can be"):
        predict_csv(colours, str(source), f"{source}/out.csv", stored(colours))


def test_a_lock_that_a_killed_prediction_left_keeps_nobody_away(colours: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / ".out.csv.lock").touch()
    source = numbers_and_colours(tmp_path / "in.csv", rows=10)
    assert predict_csv(colours, str(source), str(tmp_path / "out.csv"), stored(colours)) == (10, 0)
    with locked(joined(tmp_path, ".out.csv.lock")):
        pass


CLASSES = ("=cmd|' /C calc'!A0", "@SUM(1+1)")


def test_appended_cells_begin_no_formula_and_others_only_where_they_are_not_escaped(tmp_path: Path) -> None:
    rows = [f'{row % 2},=1+{row},"{CLASSES[row % 2]}"' for row in range(200)]
    source = write(tmp_path / "in.csv", "x,=note,label", *rows)
    recipe = table_recipe(tmp_path, source, "label", epochs=1, ignore=("=note",))
    run = trained(recipe, tmp_path)
    kept, escaped = tmp_path / "kept.csv", tmp_path / "escaped.csv"
    predict_csv(run, str(source), str(kept), stored(run))
    predict_csv(run, str(source), str(escaped), replace(stored(run), escape_formulas=True))
    given, plain, safe = read(source), read(kept), read(escaped)
    assert [{name: row[name] for name in given[0]} for row in plain] == given
    assert {row["prediction"] for row in plain} <= {f"'{name}" for name in CLASSES}
    assert [row["prediction"] for row in safe] == [row["prediction"] for row in plain]
    assert [row["'=note"] for row in safe] == [f"'{row['=note']}" for row in given]
    assert {row["label"] for row in safe} == {f"'{name}" for name in CLASSES}
    for name in escaped.read_text().partition("\n")[0].split(","):
        assert name[0] not in "=+-@"


def test_a_prediction_that_is_refused_leaves_nothing_behind(colours: RunDirectory, tmp_path: Path) -> None:
    source = numbers_and_colours(tmp_path / "in.csv", rows=10)
    header, *rows = source.read_text().splitlines()
    source.write_text("\n".join([f"{header},prediction", *(f"{row},x" for row in rows)]))
    with pytest.raises(UserError, match="has a column 'prediction' already"):
        predict_csv(colours, str(source), str(tmp_path / "out.csv"), stored(colours))
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == ["in.csv"]
