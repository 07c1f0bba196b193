"""Labels, of which a row may have any number, in columns of 0 and 1 or in one of lists."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
import torch

from blitz.api.run import Run
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.csv.tabular import CsvData
from blitz.errors import DataError, UserError
from blitz.export.checked_export import export
from blitz.models.table_models import Layers
from blitz.recipes.image_csv import ImageCsv, VisionModel
from blitz.recipes.table_csv import TableCsv
from blitz.run_files.open import stored_recipe
from blitz.settings import from_json, to_json
from blitz.training.explanation import explain
from tests.pictures import coloured
from tests.running import result, train

TRUTH = np.random.default_rng(1).integers(0, 2, (400, 2))
LABELS = ("large", "warm")


def tables(folder: Path) -> tuple[Path, Path]:
    """Labels that depend on two numbers: in two columns, and as lists, of which a quarter is empty."""
    noise = np.random.default_rng(0).normal(size=(400, 2)) * 0.4
    numbers = [",".join(f"{each:.5f}" for each in row) for row in TRUTH + noise]
    columns = "".join(f"{number},{a},{b == 1}\n" for number, (a, b) in zip(numbers, TRUTH.tolist(), strict=True))
    (folder / "columns.csv").write_text("a,b,large,warm\n" + columns)
    lists = [";".join(label for label, has in zip(LABELS, row, strict=True) if has) for row in TRUTH]
    (folder / "lists.csv").write_text(
        "a,b,tags\n" + "".join(f"{number},{tags}\n" for number, tags in zip(numbers, lists, strict=True))
    )
    return folder / "columns.csv", folder / "lists.csv"


def recipe(file: Path, **settings: Any) -> TableCsv:
    data = CsvData(train_csv=str(file), val_fraction=0.3, cache=str(file.parent / "cache"), **settings)
    return TableCsv(data=data, epochs=12, extra_metrics=("f1", "auroc"), model=Layers("mlp", hidden=(8,), dropout=0.0))


def test_columns_and_lists_are_the_same_labels(tmp_path: Path) -> None:
    columns, lists = tables(tmp_path)
    one = recipe(columns, labels=LABELS).fitted()
    other = recipe(lists, target="tags", label_separator=";").fitted()
    assert one.labels == other.labels == LABELS
    rows = np.arange(len(one.dataset("train")))
    targets = [each.dataset("train").__getitems__(rows)["targets"] for each in (one, other)]
    assert np.array_equal(targets[0], targets[1])
    lines = one.dataset("train").table.lines(rows)
    assert np.array_equal(targets[0], TRUTH[lines - 2])
    assert from_json(TableCsv, json.loads(json.dumps(to_json(one)))) == one


def test_labels_are_learned_and_their_metrics_are_those_of_scikit_learn(tmp_path: Path) -> None:
    columns, _ = tables(tmp_path)
    trained = recipe(columns, labels=LABELS)
    run = train(trained, tmp_path / "run")
    predicted = Run(run).predict(str(columns))
    fitted = trained.fitted()
    lines = fitted.dataset("val").table.lines(np.arange(len(fitted.dataset("val")))) - 2
    truth = TRUTH[lines]
    labels = np.stack([predicted[f"prediction_{name}"].to_numpy()[lines] for name in LABELS], 1)
    shares = np.stack([predicted[f"probability_{name}"].to_numpy()[lines] for name in LABELS], 1)
    metrics = result(run)["metrics"]
    assert np.array_equal(labels, shares >= 0.5)
    assert metrics["val/f1_macro"] == pytest.approx(sk.f1_score(truth, labels, average="macro"))
    assert metrics["val/f1_micro"] == pytest.approx(sk.f1_score(truth, labels, average="micro"))
    assert metrics["val/exact_accuracy"] == pytest.approx(sk.accuracy_score(truth, labels))
    assert metrics["val/loss"] == pytest.approx(
        np.mean([sk.log_loss(truth[:, n], shares[:, n]) for n in range(2)]), rel=1e-4
    )
    for number, name in enumerate(LABELS):
        assert metrics[f"val/f1/{name}"] == pytest.approx(sk.f1_score(truth[:, number], labels[:, number]))
        # Scores are counted in bins.
        area = sk.roc_auc_score(truth[:, number], shares[:, number])
        assert metrics[f"val/auroc/{name}"] == pytest.approx(area, abs=2e-3)
    # The numbers tell the labels apart but for noise.
    assert metrics["val/f1_macro"] > 0.75
    artifact = export(fitted, run, run.checkpoint_step("best"), "torch_export", quantize=False, tolerance=1e-4)
    assert artifact.signature["labels"] == list(LABELS)
    assert artifact.signature["outputs"]["probabilities"]["shape"] == ["batch", 2]


def test_lists_are_read_as_others_write_them_and_predicted_as_they_were_given(tmp_path: Path) -> None:
    cells = ["a b", "\"['a', 'b']\"", '"[""b""]"', "[]", "", "b"]
    (tmp_path / "t.csv").write_text("x,tags\n" + "".join(f"{n}.5,{cells[n % 6]}\n" for n in range(24)))
    for separator, expected in ((",", [[0, 1, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 1]]),):
        data = CsvData(str(tmp_path / "t.csv"), target="tags", label_separator=separator, cache=str(tmp_path / "c"))
        fitted = TableCsv(data=data).fitted()
        assert fitted.labels == ("a", "a b", "b")
        assert fitted.dataset("train").__getitems__(np.arange(6))["targets"].tolist() == expected
    scores = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -1.0, -2.0]])
    assert fitted.predictions(scores, {})["prediction"] == ["a,b", ""]


def test_what_cannot_be_labels_is_refused(tmp_path: Path) -> None:
    columns, lists = tables(tmp_path)
    (tmp_path / "words.csv").write_text(
        "a,large,warm\n" + "".join(f"{n},{n % 2},{['no', 'maybe'][n % 2]}\n" for n in range(9))
    )
    (tmp_path / "val.csv").write_text("a,b,tags\n1,2,large;cold\n1,2,warm\n")
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (DataError, "column 'warm' holds 'maybe'; a column that is one of several", {"file": tmp_path / "words.csv"}),
        (UserError, "--data.labels and --data.target: give one of them", {"file": columns, "target": "a"}),
        (UserError, "--data.ignore names 'warm', which is to be learned", {"file": columns, "ignore": ("warm",)}),
        (UserError, "--data.task regression: leave it out", {"file": columns, "task": "regression"}),
    ]
    for error, says, settings in refused:
        with pytest.raises(error, match=says):
            recipe(**{"labels": LABELS, **settings}).fitted()
    listed = recipe(lists, target="tags", label_separator=";")
    with pytest.raises(UserError, match="--label-smoothing: for classes, and a row may have several labels"):
        TableCsv(data=listed.data, label_smoothing=0.1).fitted()
    data = CsvData(str(lists), str(tmp_path / "val.csv"), target="tags", label_separator=";", cache=str(tmp_path / "c"))
    with pytest.raises(DataError, match=r"val.csv:2: column 'tags' holds 'large;cold'; expected labels that occur"):
        TableCsv(data=data).fitted().dataset("val")


def test_labels_of_images_are_in_columns_or_lists_too(tmp_path: Path) -> None:
    colours = coloured(tmp_path / "images", 12)
    rows = [line.split(",") for line in colours.read_text().splitlines()[1:]]
    truth = np.array([[colour != "red", colour != "blue"] for _, colour in rows])
    columns, lists = (tmp_path / "images" / f"{name}.csv" for name in ("columns", "lists"))
    columns.write_text(
        "file,cold,warm\n" + "".join(f"{row[0]},{a:d},{b:d}\n" for row, (a, b) in zip(rows, truth, strict=True))
    )
    tags = ["|".join(np.array(["cold", "warm"])[has]) for has in truth]
    lists.write_text("file,tags\n" + "".join(f"{row[0]},{tag}\n" for row, tag in zip(rows, tags, strict=True)))
    own: list[dict[str, Any]] = [
        {"train_csv": str(columns), "task": "multilabel"},
        {"train_csv": str(lists), "label_separator": "|"},
    ]
    for settings in own:
        data = ImageCsvData(val_csv=settings["train_csv"], size=32, loader_workers=0, cache=str(tmp_path), **settings)
        of_images = ImageCsv(data=data, max_steps=1, model=VisionModel("mobilenet_v3_small"))
        fitted = of_images.fitted()
        assert fitted.labels == ("cold", "warm")
        assert np.array_equal(fitted.dataset("val").__getitems__(np.arange(12))["targets"], truth)
    run = train(of_images, tmp_path / "run")
    assert {"val/f1_macro", "val/f1_micro", "val/exact_accuracy"} <= {*result(run)["metrics"]}
    predicted = Run(run).predict(str(colours))
    found = np.stack([predicted[f"probability_{name}"].to_numpy() >= 0.5 for name in ("cold", "warm")], 1)
    assert predicted["prediction"].to_pylist() == ["|".join(np.array(["cold", "warm"])[has]) for has in found]


def test_a_model_of_labels_is_explained(tmp_path: Path) -> None:
    _, lists = tables(tmp_path)
    run = train(replace(recipe(lists, target="tags", label_separator=";"), epochs=1), tmp_path / "run")
    found = explain(stored_recipe(run), run, step=run.checkpoint_step("last"), split="val")
    assert found is not None
    shown = {point["series"] for column in found["dependence"] for point in column["points"]}
    assert shown == {f"probability of {label}" for label in LABELS}
