import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blitz.api.predict_rows import PredictSettings, predict_csv
from blitz.cli.predict import main
from blitz.data.csv.table import InputRows
from blitz.data.plan import Plan
from blitz.errors import DataError, UserError
from blitz.launch.launch import launch
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.recipes import recipe_to_json
from blitz.recipes.table_csv import TableCsv
from blitz.run_files.directory import RunDirectory
from blitz.training.model import build_model
from blitz.training.prediction import PredictJob
from blitz.training.world import World
from tests.pictures import coloured
from tests.running import train, weights
from tests.test_image_csv import recipe as image_recipe
from tests.test_table_csv import numbers_and_colours
from tests.test_table_csv import recipe as table_recipe
from tests.waiting import wait_until

Rows = list[dict[str, str]]


def trained(recipe: Any, folder: Path) -> RunDirectory:
    """A run of the recipe, as `blitz train` leaves it."""
    run = train(recipe, folder / "run")
    run.write_json("recipe.json", recipe_to_json(recipe.fitted()))
    return run


def read(file: Path, delimiter: str = ",") -> Rows:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def colours(folder: Path) -> RunDirectory:
    """A classifier of the colour by three numbers."""
    csv = numbers_and_colours(folder / "train.csv")
    return trained(table_recipe(folder, csv, "colour", epochs=1, log_every_steps=1), folder)


def stored(run: RunDirectory) -> PredictSettings:
    from blitz.run_files.open import stored_recipe

    return PredictSettings(stored_recipe(run), scale=Scale(num_workers=0))


def test_predictions_are_those_of_the_model_in_the_order_of_the_rows(colours: RunDirectory, tmp_path: Path) -> None:
    source = numbers_and_colours(tmp_path / "in.csv", rows=700, noise=1.0)
    assert predict_csv(colours, str(source), str(tmp_path / "out.csv"), stored(colours)) == (700, 0)
    given, said = read(source), read(tmp_path / "out.csv")
    assert [{name: row[name] for name in given[0]} for row in said] == given

    recipe = stored(colours).recipe
    assert isinstance(recipe, TableCsv)
    model = build_model(recipe, World(0, 1, torch.device("cpu"))).eval()
    model.load_state_dict(weights(colours))
    numbers = torch.tensor([[float(row[each.name]) for each in recipe.fit.numbers] for row in given]).double()
    batch = {"numbers": numbers, "categories": torch.zeros(700, 0, dtype=torch.long)}
    with torch.no_grad():
        scores = recipe.forward(model, recipe.preprocess(batch)).softmax(1)
    classes = recipe.fit.target.classes
    assert [row["prediction"] for row in said] == [classes[index] for index in scores.argmax(1).tolist()]
    for index, name in enumerate(classes):
        found = np.array([float(row[f"probability_{name}"]) for row in said])
        assert found == pytest.approx(scores[:, index].numpy(), abs=1e-5)
    assert np.array([float(row["probability"]) for row in said]) == pytest.approx(scores.amax(1).numpy(), abs=1e-5)


def test_every_row_is_there_as_it_was_written_and_bad_ones_say_why(colours: RunDirectory, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(
        'y;name;b;a\n1;"two\nlines";2;3\n1;plain;abc;3\n1;2;3\n007;;1.50;\n\n4;"a ; b ""c""";1;1\n1;2;3;4;5\n'
    )
    assert predict_csv(colours, str(source), str(tmp_path / "out.csv"), stored(colours)) == (6, 3)
    rows = read(tmp_path / "out.csv", ";")
    assert [row["name"] for row in rows] == ["two\nlines", "plain", "2", "", 'a ; b "c"', "2"]
    assert [row["y"] for row in rows] == ["1", "1", "1", "007", "4", "1"]
    assert [row["b"] for row in rows] == ["2", "abc", "3", "1.50", "1", "3"]
    assert [row["error"] for row in rows] == [
        "",
        "column 'b' holds 'abc'; expected a number",
        "the row has 3 fields; the header has 4",
        "",
        "",
        "the row has 5 fields; the header has 4",
    ]
    assert [bool(row["prediction"]) for row in rows] == [not row["error"] for row in rows]


def test_numbers_are_predicted_in_their_own_unit(folder: Path, tmp_path: Path) -> None:
    source = numbers_and_colours(folder / "y.csv")
    run = trained(table_recipe(folder, source, "y", epochs=10), tmp_path)
    predict_csv(run, str(source), str(tmp_path / "out.csv"), stored(run))
    rows = read(tmp_path / "out.csv")
    errors = [float(row["prediction"]) - float(row["y"]) for row in rows]
    assert abs(np.mean(errors)) < 1
    assert np.std(errors) < 2.5


def test_images_are_predicted_and_invalid_files_are_marked(tmp_path: Path) -> None:
    source = coloured(tmp_path / "images", 24)
    run = trained(image_recipe(tmp_path, source), tmp_path)
    (tmp_path / "images" / "0-003.png").write_bytes(b"no image")
    text = source.read_text().replace(",red", "").replace(",green", "").replace(",blue", "").replace(",colour", "")
    (tmp_path / "images" / "in.csv").write_text(text + "nosuch.jpg\n")
    target = tmp_path / "out.csv"
    assert predict_csv(run, str(tmp_path / "images" / "in.csv"), str(target), stored(run)) == (25, 2)
    rows = read(target)
    assert rows[3]["error"] == "column 'file' holds '0-003.png'; the image cannot be decoded: it is of no known kind"
    assert rows[24]["error"] == "column 'file' holds 'nosuch.jpg'; there is no such file"
    assert {row["prediction"] for row in rows if not row["error"]} <= {"red", "green", "blue"}


def test_what_cannot_be_is_refused_in_one_line(colours: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "lacks.csv").write_text("a,colour\n1,red\n")
    (tmp_path / "has.csv").write_text("a,b,y,prediction\n1,1,1,1\n")
    (tmp_path / "there.csv").write_text("")
    settings, out = stored(colours), str(tmp_path / "out.csv")
    with pytest.raises(DataError, match=r"lacks\.csv has no column 'b'; it has: a, colour"):
        predict_csv(colours, str(tmp_path / "lacks.csv"), out, settings)
    with pytest.raises(UserError, match=r"has\.csv has a column 'prediction' already"):
        predict_csv(colours, str(tmp_path / "has.csv"), out, settings)
    with pytest.raises(UserError, match=r"there\.csv exists already; name another file, or add --overwrite"):
        predict_csv(colours, str(tmp_path / "has.csv"), str(tmp_path / "there.csv"), settings)
    with pytest.raises(DataError, match=r"nosuch\.csv is not there"):
        predict_csv(colours, str(tmp_path / "nosuch.csv"), out, settings)
    with pytest.raises(UserError, match=r"is a folder; name a file to write"):
        predict_csv(colours, str(tmp_path / "has.csv"), str(tmp_path), replace(settings, overwrite=True))
    with pytest.raises(UserError, match=r"/proc/out\.csv cannot be written"):
        predict_csv(colours, str(tmp_path / "has.csv"), "/proc/out.csv", settings)
    with pytest.raises(UserError, match="name a run, a CSV and a file to write first"):
        main(["run", "in.csv"])
    assert not Path(out).exists()


def test_cells_that_are_hard_to_write_and_rows_that_hold_nothing(colours: RunDirectory, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b'a;b;y;note\n0,5;0,25;1,5;"x\ry"\nNA;NA;NA;\n1;2;3;plain\n-1e300;1e39;0;far\n')
    rows, errors = predict_csv(colours, str(source), str(target), stored(colours))
    found = read(target, ";")
    assert rows == len(found) == 4
    assert found[0]["note"] == "x\ry"
    assert "," in found[0]["probability"]
    assert "." not in found[0]["probability"]
    assert [bool(row["prediction"]) for row in found] == [not row["error"] for row in found]
    assert errors == sum(bool(row["error"]) for row in found)


def test_rows_whose_cells_are_all_empty_are_rows_and_blank_lines_are_none(
    colours: RunDirectory, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"a,b,y\n1,2,3\n,,\n\n4,5,6\n,,\n\n")
    assert predict_csv(colours, str(source), str(target), stored(colours)) == (4, 0)
    rows = read(target)
    assert [row["a"] for row in rows] == ["1", "", "4", ""]
    assert all(row["prediction"] and not row["error"] for row in rows)
    assert {name: rows[1][name] for name in rows[1]} == rows[3]


def test_a_row_with_a_byte_that_is_no_utf8_is_a_bad_row_beside_others_that_are_predicted(
    colours: RunDirectory, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes("a,b,y,naïve\n1,2,3,é\n4,5,6,caf".encode() + b"\xe9\n" + "7,8,9,日本\n".encode())
    assert predict_csv(colours, str(source), str(target), stored(colours)) == (3, 1)
    rows = read(target)
    assert [row["naïve"] for row in rows] == ["é", "caf\ufffd", "日本"]
    assert [row["error"] for row in rows] == [
        "",
        "column 'naïve' holds 'caf\ufffd'; expected UTF-8, as other parts of the file are",
        "",
    ]
    assert [bool(row["prediction"]) for row in rows] == [True, False, True]


def test_parts_of_another_model_are_not_taken(colours: RunDirectory, folder: Path, tmp_path: Path) -> None:
    source, target = numbers_and_colours(tmp_path / "in.csv", rows=50), tmp_path / "out.csv"
    recipe = stored(colours).recipe
    rows = recipe.inputs(str(source))
    assert isinstance(rows, InputRows)
    plan = Plan.of_evaluation(rows=50, batch_size=recipe.global_batch_size)
    # As a prediction leaves them that is killed before its end.
    job = PredictJob(recipe, plan, colours, colours.checkpoint_step("best"), RunDirectory.of(f"{target}.parts"))
    job.resume(rows.index.content)
    launch(job, {"val": rows}, Placement(Scale(num_workers=0)))
    assert job.first_step() == plan.eval_batches
    other = trained(replace(recipe, seed=5), tmp_path / "other")
    predict_csv(other, str(source), str(target), stored(other))
    predict_csv(other, str(source), str(tmp_path / "anew.csv"), stored(other))
    assert target.read_bytes() == (tmp_path / "anew.csv").read_bytes()


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_three_workers_write_the_same_file_as_this_process(colours: RunDirectory, tmp_path: Path) -> None:
    source = numbers_and_colours(tmp_path / "in.csv", rows=1003)
    source.write_text(source.read_text().replace("\n", "\nx,0,red,0\n", 1))
    alone, together = tmp_path / "alone.csv", tmp_path / "together.csv"
    predict_csv(colours, str(source), str(alone), stored(colours))
    predict_csv(
        colours, str(source), str(together), PredictSettings(stored(colours).recipe, scale=Scale(num_workers=3))
    )
    names = ("prediction", "error", "a", "colour")
    assert [[row[name] for name in names] for row in read(together)] == [
        [row[name] for name in names] for row in read(alone)
    ]
    assert len(read(together)) == 1004


@pytest.mark.slow
def test_a_killed_prediction_resumes_and_writes_the_same_file(colours: RunDirectory, tmp_path: Path) -> None:
    source = numbers_and_colours(tmp_path / "in.csv", rows=200_000)
    predict_csv(colours, str(source), str(tmp_path / "whole.csv"), stored(colours))

    target = tmp_path / "out.csv"
    command = [sys.executable, "-m", "jobs.predict", str(colours), str(source), str(target), "--scale.num-workers", "0"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: [*tmp_path.glob("out.csv.parts/*.arrow")], process=process, every=0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    again = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, text=True
    )
    assert "continues after " in again.stdout
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert [*tmp_path.glob("out.csv.*")] == []
