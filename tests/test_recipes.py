"""Every recipe that ships: its metric on real data, and that it is stored and found again."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from blitz.data.digits_images import digits
from blitz.data.torchvision_images import VisionData, cifar10, mnist
from blitz.errors import DataError, UserError
from blitz.recipe import Recipe
from blitz.recipes import find_recipe, recipe_from_json, recipe_names, recipe_to_json
from blitz.recipes.blobs import Blobs
from blitz.recipes.cifar10 import Cifar10
from blitz.recipes.digits import Digits
from blitz.recipes.dynamic_net import DynamicNetOnNoise
from blitz.recipes.lenet import LeNetOnMnist
from blitz.recipes.mnist import Mnist
from blitz.recipes.parabola import Parabola
from blitz.recipes.random_mlp import RandomMLP
from blitz.settings import differences
from tests.miniatures import ROWS, cifar10_in, write_mnist
from tests.running import result, train, weights


def test_the_shipped_digits_are_whole_and_split_without_overlap() -> None:
    train_rows, held_out = digits("train"), digits("val")
    assert (len(train_rows), len(held_out)) == (1438, 359)
    for part in (train_rows, held_out):
        assert part.columns["inputs"].shape[1:] == (1, 8, 8)
        assert (part.columns["inputs"].min(), part.columns["inputs"].max()) == (0, 16)
        assert set(part.columns["targets"]) == set(range(10))
    assert int(train_rows.columns["inputs"].sum()) + int(held_out.columns["inputs"].sum()) == 561718


def test_digits_reaches_96_5_percent(tmp_path: Path) -> None:
    # Over eight seeds: 0.980, standard deviation 0.003.
    assert result(train(Digits(), tmp_path))["metrics"]["val/accuracy"] >= 0.965


def test_parabola_is_fitted_but_for_its_noise(tmp_path: Path) -> None:
    # 0.1 is the noise's standard deviation: no curve comes closer. Over eight seeds: 0.104, standard deviation 0.005.
    assert 0.08 < result(train(Parabola(), tmp_path))["metrics"]["val/rmse"] < 0.13


def test_blobs_are_classified_as_well_as_they_can_be(tmp_path: Path) -> None:
    # Their centers are 4 √2 apart: of points so drawn, 0.23 % lie nearer to the other one. Over eight seeds: 0.9955,
    # standard deviation 0.0023.
    assert result(train(Blobs(), tmp_path))["metrics"]["val/accuracy"] > 0.98


def test_random_mlp_overfits_its_examples(tmp_path: Path) -> None:
    run = train(RandomMLP(max_steps=300), tmp_path)
    shown = [line["val/loss"] for line in run.metrics() if "val/loss" in line]
    assert len(shown) == 3
    assert shown[0] < 100
    assert shown[2] < 0.05 * shown[1] < 0.05 * 0.05 * shown[0]


def test_dynamic_net_learns_its_examples_at_every_depth(tmp_path: Path) -> None:
    recipe = DynamicNetOnNoise(max_steps=200)
    model = recipe.build_model()
    model.load_state_dict(weights(train(recipe, tmp_path)))
    columns = recipe.dataset("train").columns
    batch = {name: torch.from_numpy(column) for name, column in columns.items()}
    # To say 0 always costs the sum of 640 squares.
    for repeats in range(4):
        assert recipe.loss(recipe.forward(model, batch, repeats=repeats), batch).mean() < 64


@pytest.mark.slow
def test_lenet_reaches_97_percent_in_one_epoch(mnist_root: Path, tmp_path: Path) -> None:
    recipe = LeNetOnMnist(epochs=1, data=VisionData(root=str(mnist_root)))
    assert result(train(recipe, tmp_path))["metrics"]["val/accuracy"] >= 0.97


@pytest.mark.slow
def test_cifar10_learns_far_above_chance(test_data: Path, tmp_path: Path) -> None:
    # One epoch of the two: `python -m bench.recipes` measures the whole command.
    recipe = Cifar10(epochs=1, data=VisionData(root=str(test_data)))
    metrics = result(train(recipe, tmp_path))["metrics"]
    # Chance is 10 %. Two seeds gave 47 and 49 %, and rounding changes it as a seed does.
    assert metrics["val/accuracy"] >= 0.4
    by_class = [metrics[f"val/accuracy/{name}"] for name in ("plane", "car", "bird", "cat", "deer")]
    assert all(0 < accuracy < 1 for accuracy in by_class)


@pytest.mark.slow
def test_mnist_reaches_96_percent_in_half_an_epoch_and_shows_it_on_the_way(mnist_root: Path, tmp_path: Path) -> None:
    run = train(Mnist(max_steps=600, data=VisionData(root=str(mnist_root))), tmp_path)
    # Two seeds gave 97.2 and 97.5 %.
    assert result(run)["metrics"]["val/accuracy"] >= 0.96
    assert [line["step"] for line in run.metrics() if "val/accuracy" in line] == [300, 600]


def test_the_vision_sets_are_read_from_the_official_formats(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    with cifar10_in(tmp_path):
        colour, grey = (
            cifar10(VisionData(str(tmp_path)), "val").columns,
            mnist(VisionData(str(tmp_path)), "val").columns,
        )
    assert (colour["inputs"].shape, grey["inputs"].shape) == ((ROWS["val"], 3, 32, 32), (ROWS["val"], 1, 28, 28))
    for columns in (colour, grey):
        # The brightest rows of an image are its class's.
        brightest = columns["inputs"].mean((1, 3))[:, 4:24:2].argmax(1)
        assert (brightest == columns["targets"]).all()


def test_the_vision_sets_are_what_torchvision_says(test_data: Path, mnist_root: Path) -> None:
    assert cifar10(VisionData(str(test_data)), "train").columns["inputs"].shape == (50_000, 3, 32, 32)
    assert mnist(VisionData(str(mnist_root)), "val").columns["inputs"].shape == (10_000, 1, 28, 28)


def test_two_processes_that_are_asked_to_download_at_once_both_find_whole_files(
    tmp_path: Path,
) -> None:
    # The packed files are there, so that all of torchvision's download runs but the transfer: it unpacks them.
    files = write_mnist(tmp_path, packed=True)
    program = (
        "import torchvision; from blitz.data.torchvision_images import VisionData, mnist; "
        f"torchvision.datasets.MNIST.resources = {files!r}; "
        f"print(len(mnist(VisionData({str(tmp_path)!r}, download=True), 'train')))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[0] for process in processes] == [b"1250\n", b"1250\n"]


def test_a_damaged_file_is_reported_like_a_missing_one(tmp_path: Path) -> None:
    with cifar10_in(tmp_path):
        damaged = tmp_path / "cifar-10-batches-py" / "data_batch_3"
        damaged.write_bytes(damaged.read_bytes()[:1000])
        with pytest.raises(DataError, match="or is damaged: it must hold cifar-10-batches-py"):
            cifar10(VisionData(str(tmp_path)), "train")


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_stored_and_built_again(name: str) -> None:
    default = find_recipe(name)()
    optim = dataclasses.replace(default.optim, betas=(0.8, 0.9), lr=0.5)
    recipe = dataclasses.replace(default, seed=3, optim=optim)
    stored = json.loads(json.dumps(recipe_to_json(recipe)))
    assert recipe_from_json(stored) == recipe
    assert differences(recipe_from_json(stored), recipe) == []
    other = dataclasses.replace(optim, betas=(0.9, 0.999), lr=0.25)
    changed = dataclasses.replace(recipe, epochs=99, optim=other)
    assert differences(recipe_from_json(stored), changed) == [
        "optim.lr (was 0.5, is 0.25)",
        "optim.betas (was (0.8, 0.9), is (0.9, 0.999))",
    ]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_file_is_short(name: str) -> None:
    file = Path(sys.modules[find_recipe(name).__module__].__file__ or "")
    # Those for any CSV have settings of their models, learn classes or numbers, and are exported.
    most = {"table_csv": 184, "image_csv": 195, "translate": 160, "language": 160}
    assert len(file.read_text().splitlines()) < most.get(name, 60)


def test_a_field_that_another_version_stored_is_named() -> None:
    with pytest.raises(UserError, match="Digits has no field warp_factor"):
        recipe_from_json({**recipe_to_json(Digits()), "warp_factor": 9})


def test_a_recipe_must_say_what_is_learned() -> None:
    class Half(Recipe):
        pass

    with pytest.raises(TypeError, match=r"abstract methods .*build_model.*dataset.*loss"):
        Half()  # type: ignore[abstract]
