"""Transfer learning: class folders, a new head, frozen layers and such that are unfrozen on the way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from blitz.cli.predict import main as predict
from blitz.cli.train import main as train_main
from blitz.data.csv.image_source import ImageCsvData
from blitz.errors import DataError, UserError
from blitz.models.head import head_of
from blitz.models.vision import vision_model
from blitz.optim import Optim
from blitz.recipes import recipe_to_json
from blitz.recipes.finetune import Finetune
from blitz.recipes.image_csv import ImageCsv, VisionModel
from blitz.run_files.directory import RunDirectory
from tests.pictures import COLOURS, coloured, picture
from tests.running import losses, result, same_bits, train, weights
from tests.training.test_loop import killed_after

SMALL = VisionModel("shufflenet_v2_x0_5")


def class_folders(folder: Path, images: int, *, seed: int = 0) -> str:
    for number, colour in enumerate(COLOURS):
        (folder / colour / "more").mkdir(parents=True)
        for row in range(images):
            path = folder / colour / ("more" if row % 3 == 0 else "")
            picture(path / f"{row:02}.{('jpg', 'png')[row % 2]}", colour, seed=seed + 100 * number + row)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageCsvData:
    folder = tmp_path_factory.mktemp("pictures")
    return ImageCsvData(
        train_dir=class_folders(folder / "train", 8),
        val_dir=class_folders(folder / "val", 4, seed=1000),
        size=32,
        loader_workers=0,
        cache=str(folder / "prepared"),
    )


@pytest.fixture(scope="module")
def recipe(data: ImageCsvData) -> Finetune:
    return Finetune(
        weights=None,
        epochs=3,
        global_batch_size=8,
        log_every_steps=1,
        data=data,
        model=SMALL,
        optim=Optim("momentum", 0.05),
    )


@pytest.fixture(scope="module")
def source(recipe: Finetune, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that has learned two of the colours."""
    folder = tmp_path_factory.mktemp("source")
    csv = coloured(folder / "images", 24)
    csv.write_text("\n".join(line for line in csv.read_text().splitlines() if not line.endswith("blue")))
    data = ImageCsvData(train_csv=str(csv), size=32, loader_workers=0, cache=str(folder / "prepared"))
    two = ImageCsv(epochs=2, global_batch_size=8, data=data, model=SMALL).fitted()
    run = train(two, folder / "run")
    run.write_json("recipe.json", recipe_to_json(two))
    return run


def test_class_folders_are_the_rows_that_torchvision_finds(tmp_path: Path) -> None:
    root = tmp_path / "train"
    for number, colour in enumerate(COLOURS):
        (root / colour).mkdir(parents=True)
        for n in range(3):
            picture(root / colour / f"{n}.{('jpg', 'png')[n % 2]}", colour, seed=3 * number + n)
    theirs = torchvision.datasets.ImageFolder(str(root))
    recipe = Finetune(data=ImageCsvData(train_dir=str(root), cache=str(tmp_path))).fitted()
    dataset = recipe.dataset("train")
    rows = np.arange(len(dataset))
    cells = dataset.table.__getitems__(rows)
    assert recipe.fit.classes == tuple(theirs.classes)
    assert [(str(root / path), int(label)) for path, label in zip(cells["image"], cells["class"], strict=True)] == [
        (path, label) for path, label in theirs.samples
    ]
    assert len(recipe.dataset("val")) == 0


@pytest.mark.parametrize(
    "name",
    ["resnet18", "vgg11", "mobilenet_v3_small", "convnext_tiny", "vit_b_32", "swin_t", "squeezenet1_1", "googlenet"],
)
def test_the_head_is_what_the_number_of_outputs_decides(name: str) -> None:
    with torch.device("meta"):
        one, other = (vision_model(name, outputs=outputs, size=224) for outputs in (2, 3))
    shapes = {key: value.shape for key, value in other.state_dict().items()}
    assert head_of(one) == [key for key, value in one.state_dict().items() if value.shape != shapes[key]]


def test_a_new_head_alone_is_learned_and_what_is_before_it_stays_with_its_statistics(
    recipe: Finetune, source: RunDirectory, tmp_path: Path
) -> None:
    frozen = replace(recipe, init_from=source.uri, init_checkpoint="last", freeze="backbone")
    run = train(frozen, tmp_path)
    before, after = weights(source), weights(run)
    assert before["fc.weight"].shape == (2, 1024)
    assert after["fc.weight"].shape == (3, 1024)
    assert all(torch.equal(value, before[name]) for name, value in after.items() if not name.startswith("fc."))


@pytest.mark.parametrize("stop", [4, 6])
def test_unfrozen_from_the_middle_it_resumes_to_the_same_bits(
    recipe: Finetune, source: RunDirectory, tmp_path: Path, stop: int
) -> None:
    halfway = replace(recipe, init_from=source.uri, freeze="backbone", unfreeze_after_epochs=1.5)
    whole = train(halfway, tmp_path / "whole")
    killed_after(halfway, tmp_path / "parts", stop)
    parts = train(halfway, tmp_path / "parts")
    assert same_bits(weights(parts), weights(whole))
    assert losses(parts) == losses(whole)
    # 3 steps an epoch: the fifth is learned by the head alone, as round(4.5) is 4, and one more than without.
    rates = [line["lr/backbone"] for line in whole.metrics() if "lr/backbone" in line]
    assert rates == [0.0] * 4 + [pytest.approx(0.005)] * 5


def test_it_overfits_one_batch(recipe: Finetune, source: RunDirectory, tmp_path: Path) -> None:
    one = replace(
        recipe, init_from=source.uri, epochs=25, max_train_rows=8, backbone_lr_factor=1.0, evaluate_every_steps=25
    )
    found = losses(train(one, tmp_path))
    assert found[-1] < 0.1 * found[0]


def test_from_folders_to_predictions_by_commands(
    data: ImageCsvData,
    source: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    flags = f"--model.name {SMALL.name} --data.train-dir {data.train_dir} --data.val-dir {data.val_dir} --data.size 32"
    flags += f" --init-from {source} --freeze backbone --epochs 1 --scale.num-workers 0 --data.loader-workers 0"
    train_main(["finetune", *flags.split(), "--run", "carried"])
    printed = capsys.readouterr().out
    assert f"initialised from {source}, step" in printed
    assert "new: fc.weight, fc.bias: the head, which is for other classes" in printed
    csv = coloured(tmp_path / "images", 6)
    csv.write_text(csv.read_text().replace("file,", "image,"))
    predict(["carried", str(csv), "predicted.csv", "--scale.num-workers", "0", "--data.loader-workers", "0"])
    assert len(Path("predicted.csv").read_text().splitlines()) == 7
    with pytest.raises(UserError, match="is a folder; name a CSV with a column 'image'"):
        predict(["carried", str(tmp_path / "images"), "other.csv", "--scale.num-workers", "0"])
    assert result(RunDirectory.of("runs", "carried"))["steps"] == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "--data.train-csv FILE or --data.train-dir FOLDER"),
        ({"train_dir": "a", "train_csv": "b"}, "does not go with --data.train-csv"),
        ({"train_csv": "b", "val_dir": "a"}, "--data.val-dir goes with --data.train-dir"),
        ({"train_dir": "a", "task": "numbers"}, "--data.task numbers needs a CSV"),
        ({"train_dir": "EMPTY"}, "has no folders in it"),
        ({"train_dir": "HOLLOW"}, "HOLLOW/none holds no image"),
        ({"train_dir": "MISSING"}, "MISSING is not there"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(
    fields: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("EMPTY").mkdir()
    Path("HOLLOW/none").mkdir(parents=True)
    with pytest.raises((UserError, DataError), match=says):
        Finetune(data=ImageCsvData(**fields)).fitted()  # type: ignore[arg-type]


def test_settings_that_make_no_sense_are_refused() -> None:
    for fields, flag in (
        ({"backbone_lr_factor": 0.0}, "--backbone-lr-factor"),
        ({"unfreeze_after_epochs": 1.0}, "goes with --freeze backbone"),
        ({"freeze": "backbone", "unfreeze_after_epochs": 0.0}, "--unfreeze-after-epochs is 0.0"),
    ):
        with pytest.raises(UserError, match=flag):
            Finetune(**fields)


def test_weights_that_torchvision_does_not_have_are_named() -> None:
    with pytest.raises(
        UserError, match=r"no weights 'BEST' for resnet50; it has IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"
    ):
        Finetune(model=VisionModel("resnet50"), weights="BEST").pretrained()
