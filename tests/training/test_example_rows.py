"""The rows of an evaluation that are kept to be looked at."""

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blitz.data.plan import Plan
from blitz.launch.launch import launch
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.optim import Optim
from blitz.recipes.digits import Digits
from blitz.recipes.parabola import Parabola
from blitz.run_files.directory import RunDirectory
from blitz.training.evaluation import EvaluateJob
from blitz.training.example_rows import ROW, SHOWN, TopRows, picture_uri
from blitz.training.model import build_model
from blitz.training.world import World
from tests.running import train, weights

RECIPE = Digits(epochs=1, max_train_rows=320, optim=Optim(lr=0.003))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(RECIPE, tmp_path_factory.mktemp("digits"))


def record(run: RunDirectory, path: str = "evaluations/best.json") -> dict[str, Any]:
    found = run.read_json(path)
    assert found is not None
    return found


def test_the_mistakes_are_those_that_the_model_is_surest_of(run: RunDirectory) -> None:
    dataset = RECIPE.dataset("val").columns
    model = build_model(RECIPE, World(0, 1, torch.device("cpu"))).eval()
    model.load_state_dict(weights(run))
    with torch.no_grad():
        sureness, predicted = model(torch.from_numpy(dataset["inputs"]).float() / 16).softmax(1).max(1)
    wrong = np.flatnonzero(predicted.numpy() != dataset["targets"])
    most_confident = wrong[np.argsort(-sureness.numpy()[wrong])][:SHOWN]
    shown = record(run)["examples"]["mistakes"]
    assert [one["row"] for one in shown] == most_confident.tolist()
    assert [one["truth"] for one in shown] == [str(dataset["targets"][row]) for row in most_confident]
    assert [one["prediction"] for one in shown] == [str(int(predicted[row])) for row in most_confident]
    assert [one["probability"] for one in shown] == pytest.approx(
        [sureness[row].item() for row in most_confident], abs=1e-5
    )


def test_a_picture_is_that_of_its_row(run: RunDirectory) -> None:
    inputs = RECIPE.dataset("val").columns["inputs"]
    for one in record(run)["examples"]["random"]:
        _, _, data = one["picture"].partition("base64,")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(pixels, inputs[one["row"], 0].astype(int) * 255 // 16)


def test_pictures_are_small_whatever_their_size() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 400, 600), np.uint8))
    uri = picture_uri(noise)
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 20_000


def test_how_the_rows_pass_by_does_not_change_which_are_shown(run: RunDirectory) -> None:
    plan = Plan.of_evaluation(rows=359, batch_size=32)
    job = EvaluateJob(replace(RECIPE, micro_batch_size=7), plan, run, "val", 10)
    launch(job, {"val": RECIPE.dataset("val")}, Placement(Scale(num_workers=0, use_gpu="no")))
    other, one = record(run, job.result_file)["examples"], record(run)["examples"]
    for kind in ("mistakes", "random"):
        assert [each["row"] for each in other[kind]] == [each["row"] for each in one[kind]]


def test_of_numbers_there_is_a_bounded_sample_in_the_targets_own_units(tmp_path: Path) -> None:
    recipe = replace(Parabola(), epochs=1)
    examples = record(train(recipe, tmp_path))["examples"]
    targets = recipe.dataset("val").columns["targets"]
    assert len(examples["sample"]) == len(targets) == 200
    for one in examples["sample"]:
        assert one["truth"] == {"prediction": pytest.approx(targets[one["row"], 0].item())}
    errors = [abs(one["truth"]["prediction"] - one["prediction"]["prediction"]) for one in examples["mistakes"]]
    assert errors == sorted(errors, reverse=True)


def test_of_equal_scores_the_first_rows_are_kept_however_they_pass_by() -> None:
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    kept = TopRows(SHOWN)
    for part in rows.split(30):
        kept.add(torch.ones(len(part)), {ROW: part})
    assert kept.best()[1][ROW].tolist() == list(range(SHOWN))
