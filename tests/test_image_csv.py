"""Images of a CSV: what is learned of them, what training does to them, and how invalid files are handled."""

import csv as csv_module
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from blitz.augmentation import Augmentation
from blitz.data.arrays import FAULT
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.plan import Block, Plan, Shares, fetch
from blitz.errors import DataError, UserError
from blitz.models.vision import require_fits
from blitz.optim import Optim
from blitz.recipes import recipe_from_json, recipe_to_json
from blitz.recipes.image_csv import ImageCsv
from blitz.settings import differences
from blitz.storage import open_location
from blitz.training.batches import StepBatch, step_batches
from blitz.training.world import World
from tests.object_store import uri_of
from tests.pictures import coloured, dots
from tests.running import losses, result, same_bits, train, weights

ALONE = World(0, 1, torch.device("cpu"))


def recipe(folder: Path, csv: Path, **settings: Any) -> ImageCsv:
    """The recipe on a CSV, for small images; `settings` of the data are given by their names there."""
    of_data = {name: settings.pop(name) for name in [*settings] if name in ImageCsvData.__dataclass_fields__}
    usual = {"train_csv": str(csv), "cache": str(folder / "cache"), "size": 32, "loader_workers": 0}
    data = ImageCsvData(**{**usual, **of_data})
    return ImageCsv(data=data, **{"global_batch_size": 8, "log_every_steps": 1, "epochs": 1, **settings})


def blocks_of(trained: ImageCsv, world_size: int) -> list[list[Block]]:
    """What each rank fetches in one epoch."""
    dataset = trained.dataset("train")
    shares = Shares.of(trained.plan(len(dataset), 0), world_size=world_size, row_bytes=20_000)
    return [[fetch(dataset, shares, chunk, rank) for chunk in shares.chunks(0)] for rank in range(world_size)]


def test_classes_are_learned(tmp_path: Path) -> None:
    train_csv, val_csv = coloured(tmp_path / "train", 48), coloured(tmp_path / "val", 15, "val.csv", seed=1)
    run = train(recipe(tmp_path, train_csv, val_csv=str(val_csv), epochs=3), tmp_path / "run")
    assert result(run)["metrics"]["val/accuracy"] > 0.9
    assert set(result(run)["metrics"]) >= {"val/accuracy/red", "val/accuracy/green", "val/accuracy/blue"}


def test_columns_are_found_and_stored_and_a_run_is_opened_again_without_the_fit(tmp_path: Path) -> None:
    fitted = recipe(tmp_path, coloured(tmp_path / "images", 12)).fitted()
    assert (fitted.fit.image_column, fitted.fit.targets, fitted.fit.task) == ("file", ("colour",), "classification")
    assert fitted.fit.classes == ("blue", "green", "red")
    again = recipe_from_json(json.loads(json.dumps(recipe_to_json(fitted))))
    assert again == fitted
    assert differences(fitted, again) == []
    columns = fitted.dataset("train").__getitems__(np.arange(3))
    assert columns["inputs"].shape == (3, 3, 37, 37)
    assert columns["targets"].tolist() == [2, 1, 0]


def test_paths_may_start_from_another_folder_or_be_absolute_or_uris(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    coloured(folder, 6)
    names = sorted(file.name for file in folder.glob("0-*"))
    cells = [names[0], str(folder / names[1]), (folder / names[2]).as_uri(), *names[3:]]
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(f"{cell},{n % 2}\n" for n, cell in enumerate(cells)))
    fitted = recipe(tmp_path, tmp_path / "a.csv", image_root=str(folder)).fitted()
    one = fitted.dataset("train").__getitems__(np.arange(6))["inputs"]
    other = recipe(tmp_path, folder / "train.csv").fitted().dataset("train").__getitems__(np.arange(6))["inputs"]
    assert np.array_equal(one, other)


def test_images_and_their_csv_may_lie_on_s3(s3_port: int, tmp_path: Path) -> None:
    local = coloured(tmp_path / "images", 24)
    uri = uri_of(s3_port, tmp_path.name)
    files, folder = open_location(uri)
    for file in local.parent.iterdir():
        with files.open_output_stream(f"{folder}/{file.name}") as stream:
            stream.write(file.read_bytes())
    there = uri.replace("?", "/train.csv?")
    for image_root in (None, uri):
        on_s3 = recipe(tmp_path, Path(), train_csv=there, image_root=image_root)
        run = train(on_s3, tmp_path / f"{image_root is None}")
        assert losses(run) == losses(train(recipe(tmp_path, local), tmp_path / f"{image_root is None}-here"))


def test_several_columns_of_numbers_are_learned_together(tmp_path: Path) -> None:
    source = coloured(tmp_path / "images", 12)
    names = [line.split(",")[0] for line in source.read_text().splitlines()[1:]]
    lines = ["width_mm,path,height_mm,note", *(f"{n},{name},{100 - 3 * n},x{n}" for n, name in enumerate(names))]
    (tmp_path / "images" / "sizes.csv").write_text("\n".join([*lines, ""]))
    sizes = recipe(tmp_path, tmp_path / "images" / "sizes.csv", label_column=("*_mm",), val_fraction=0.25)
    fitted = sizes.fitted()
    assert fitted.fit.targets == ("width_mm", "height_mm")
    targets = fitted.dataset("train").__getitems__(np.arange(9))["targets"]
    assert targets.shape == (9, 2)
    assert targets.mean(0) == pytest.approx([0, 0], abs=1e-6)
    assert targets.std(0) == pytest.approx([1, 1], abs=1e-5)
    metrics = result(train(sizes, tmp_path / "run"))["metrics"]
    assert metrics["val/mae"] == pytest.approx((metrics["val/mae/width_mm"] + metrics["val/mae/height_mm"]) / 2)


def white(pixels: torch.Tensor, x: float, y: float) -> bool:
    """Whether the brightest of an image's pixels near a point, in halves of the image from its centre, is white."""
    side = pixels.shape[-1]
    column, row = (side * (1 + each) / 2 - 0.5 for each in (x, y))
    window = pixels[:, max(0, round(row) - 1) : round(row) + 2, max(0, round(column) - 1) : round(column) + 2]
    return bool(window.max() > 120)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("min_area", [None, 0.6])
def test_points_move_with_the_image_and_are_reported_in_its_own_pixels(
    fit: Any, min_area: float | None, tmp_path: Path
) -> None:
    settings: Any = {"task": "points", "size": 64, "resize": 72, "fit": fit, "global_batch_size": 12}
    trained = recipe(tmp_path, dots(tmp_path / "dots", 12), augmentation=Augmentation(min_area=min_area), **settings)
    trained = trained.fitted()
    with (tmp_path / "dots" / "dots.csv").open() as file:
        marked = [[float(cell) for cell in row[1:]] for row in [*csv_module.reader(file)][1:]]
    (block,) = blocks_of(trained, 1)[0]
    (batch,) = step_batches(block, trained.plan(12, 0), ALONE)
    ((augmented, _),) = batch.micro_batches(trained)
    seen = trained.preprocess(batch.columns)
    assert not torch.equal(augmented["inputs"], seen["inputs"])
    for columns in (augmented, seen):
        assert columns["inputs"].shape == (12, 3, 64, 64)
        bright = columns["inputs"] * 58 + 114  # What preprocessing took off and divided by, roughly.
        for index, row in enumerate(block.rows.tolist()):
            points = columns["targets"][index].tolist()
            assert white(bright[index], *points[:2])
            assert white(bright[index], *points[2:])
            said = trained.predictions(columns["targets"], columns)
            assert [said[f"prediction_{name}"][index] for name in trained.fit.targets] == pytest.approx(
                marked[row], abs=0.01
            )
    metric = trained.metrics()
    # One side of the model's image is as many pixels as the frame says: a shift by the whole of it is that far.
    shifted = augmented["targets"] + torch.tensor([2.0, 0.0, 2.0, 0.0])
    error = metric.compute(metric.sums(shifted, augmented))["pixel_error"]
    assert error == pytest.approx(2 * augmented["frame"][:, 2].mean().item(), rel=1e-4)


def draws_by_row(trained: ImageCsv, world_size: int) -> dict[tuple[int, int], list[float]]:
    plan = trained.plan(len(trained.dataset("train")), 0)
    found: dict[tuple[int, int], list[float]] = {}
    for blocks in blocks_of(trained, world_size):
        batches: list[StepBatch] = [batch for block in blocks for batch in step_batches(block, plan, ALONE)]
        for batch in batches:
            for row, draws in zip(batch.numbers.tolist(), batch.draws(3).tolist(), strict=True):
                assert found.setdefault((batch.epoch, row), draws) == draws
    return found


def test_augmentation_is_that_of_seed_epoch_and_row_on_any_number_of_workers(tmp_path: Path) -> None:
    trained = recipe(tmp_path, coloured(tmp_path / "images", 21), epochs=2).fitted()
    alone = draws_by_row(trained, 1)
    assert len(alone) == 42
    assert len({tuple(draws) for draws in alone.values()}) == 42
    assert draws_by_row(trained, 3) == alone
    assert draws_by_row(replace(trained, seed=1), 1) != alone


def test_augmentation_is_for_training_alone_and_can_be_switched_off(tmp_path: Path) -> None:
    plain = recipe(tmp_path, coloured(tmp_path / "images", 8), fit="stretch", augmentation=Augmentation(False, 1.0))
    plain = plain.fitted()
    (block,) = blocks_of(plain, 1)[0]
    (batch,) = step_batches(block, plain.plan(8, 0), ALONE)
    assert torch.equal(plain.augment(batch.columns, batch.draws)["inputs"], batch.columns["inputs"])
    ((trained_on, _),) = batch.micro_batches(plain)
    assert torch.equal(trained_on["inputs"], plain.preprocess(batch.columns)["inputs"])
    mirrored = replace(plain, augmentation=Augmentation(True, 1.0, 0.2)).augment(batch.columns, batch.draws)["inputs"]
    flips = (batch.draws(7)[:, 4] < 0.5).tolist()
    assert 0 < sum(flips) < 8
    flipped = replace(plain, augmentation=Augmentation(True, 1.0)).augment(batch.columns, batch.draws)["inputs"]
    for flip, one, was in zip(flips, flipped, batch.columns["inputs"], strict=True):
        torch.testing.assert_close(one, (was.flip(2) if flip else was).float(), atol=0.01, rtol=0)
    assert (mirrored - flipped).abs().mean() > 1


@pytest.mark.parametrize(
    ("header", "settings", "says"),
    [
        ("file,colour", {"image_column": "picture"}, "no column 'picture'"),
        ("file,colour", {"label_column": ("size_*",)}, r"no column 'size_\*' to learn; it has: file, colour"),
        ("file,colour", {"task": "points"}, "learns pairs of columns, x and y, and there are 1"),
        ("file,colour", {"size": 0}, "--data.size is 0"),
        ("file,colour", {"resize": 16}, "--data.resize is 16; it must be at least --data.size, 32"),
        ("file,colour", {"loader_workers": -1}, "--data.loader-workers is -1"),
        ("file,colour", {"val_csv": "a.csv", "val_fraction": 0.1}, "two ways to evaluate"),
        ("file,copy.jpg", {"image_column": "copy.jpg", "label_column": ("copy.jpg",)}, "to learn"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(header: str, settings: Any, says: str, tmp_path: Path) -> None:
    csv = coloured(tmp_path / "images", 6)
    csv.write_text("\n".join([header, *csv.read_text().splitlines()[1:], ""]))
    with pytest.raises(UserError, match=says):
        recipe(tmp_path, csv, **settings).fitted()


def test_columns_of_images_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("a,b,label\nx.jpg,y.jpg,1\nz.jpg,w.jpg,0\n")
    with pytest.raises(
        DataError, match=r"2 of the columns a, b, label holds names of image files; .*--data.image-column"
    ):
        recipe(tmp_path, tmp_path / "two.csv").fitted()
    (tmp_path / "none.csv").write_text("a,label\nx,1\nz,0\n")
    with pytest.raises(DataError, match="none of the columns a, label holds names of image files"):
        recipe(tmp_path, tmp_path / "none.csv").fitted()


def test_models_are_those_of_torchvision(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no classifier 'resnet_18'; it has .*resnet18"):
        require_fits("resnet_18", outputs=2, size=64)
    with pytest.raises(UserError, match="alexnet does not take images of 32 by 32 pixels"):
        require_fits("alexnet", outputs=2, size=32)
    for name in ("alexnet", "densenet121", "googlenet", "inception_v3", "mobilenet_v3_small", "swin_t", "vgg11"):
        require_fits(name, outputs=2, size=96)
    require_fits("vit_b_16", outputs=2, size=96)
    assert len(torchvision.models.list_models(module=torchvision.models)) > 50


def test_a_run_on_images_resumes_to_the_same_bits(tmp_path: Path) -> None:
    # A schedule that does not depend on where the run ends.
    trained = recipe(tmp_path, coloured(tmp_path / "images", 20), epochs=2, optim=Optim(lr=1e-3))
    whole = train(trained, tmp_path / "whole")
    train(replace(trained, max_steps=2), tmp_path / "parts")
    parts = train(trained, tmp_path / "parts")
    assert same_bits(weights(parts), weights(whole))
    assert losses(parts) == losses(whole)


def test_the_faces_of_the_tutorial_are_learned_from_136_columns(test_data: Path, tmp_path: Path) -> None:
    faces = test_data / "faces" / "face_landmarks.csv"
    if not faces.exists():
        pytest.skip(f"no {faces}")
    trained = recipe(tmp_path, faces, task="points", fit="stretch", val_fraction=0.2, global_batch_size=11, epochs=4)
    run = train(trained, tmp_path / "run")
    # From 55 faces the loss on unseen ones falls late, on the training rows at once: to 0.14 of 0.47, over four seeds.
    learned = [line["train/loss"] for line in run.metrics() if "train/loss" in line]
    assert sum(learned[-5:]) < sum(learned[:5]) / 2
    assert len([line for line in run.metrics() if "val/pixel_error" in line]) == 4
    assert Plan.of_evaluation(rows=len(trained.fitted().dataset("val")), batch_size=1).eval_rows == 14


def test_training_sees_pixels_on_the_scale_that_evaluation_sees(tmp_path: Path) -> None:
    trained = recipe(tmp_path, coloured(tmp_path / "images", 8), augmentation=Augmentation(color=0.1)).fitted()
    (block,) = blocks_of(trained, 1)[0]
    (batch,) = step_batches(block, trained.plan(8, 0), ALONE)
    ((seen, _),) = batch.micro_batches(trained)
    evaluated = trained.preprocess(batch.columns)["inputs"]
    assert seen["inputs"].mean().item() == pytest.approx(evaluated.mean().item(), abs=0.1)
    assert seen["inputs"].amin().item() == pytest.approx(evaluated.amin().item(), abs=0.5)


def test_an_image_root_may_be_relative_to_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = coloured(tmp_path / "images", 6)
    (tmp_path / "a.csv").write_text(csv.read_text())
    monkeypatch.chdir(tmp_path)
    rows = pickle.dumps(recipe(tmp_path, Path("a.csv"), image_root="images").fitted().dataset("train"))
    monkeypatch.chdir("/")
    assert set(pickle.loads(rows).__getitems__(np.arange(6))[FAULT]) == {""}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="nosuch, which is not a folder"):
        recipe(tmp_path, Path("a.csv"), image_root="nosuch").fitted()
