"""Losses that recipes share, compared with torch's and by what they do to what is learned."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from blitz.api.run import Run
from blitz.data.csv.tabular import CsvData
from blitz.errors import UserError
from blitz.losses import LearnsTargets
from blitz.models.table_models import Layers
from blitz.optim import ModelOptim
from blitz.recipes.table_csv import TableCsv
from blitz.settings import from_json, to_json
from tests.running import result, train

SCORES, TARGETS = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
NUMBERS = torch.linspace(-3, 3, 64)


def recipe(**settings: Any) -> LearnsTargets:
    return TableCsv(**settings)


def of_classes(**settings: Any) -> torch.Tensor:
    return recipe(**settings).loss_of_classes(SCORES.clone().requires_grad_(), TARGETS).detach()


def test_class_weights_and_label_smoothing_are_those_of_torch() -> None:
    weights = (1.0, 2.0, 5.0)
    expected = F.cross_entropy(SCORES, TARGETS, weight=torch.tensor(weights), reduction="none")
    torch.testing.assert_close(of_classes(class_weights=weights), expected)
    smooth = F.cross_entropy(SCORES, TARGETS, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(of_classes(label_smoothing=0.1), smooth)


def test_the_focal_loss_counts_a_row_by_what_its_class_lacks() -> None:
    shares = SCORES.softmax(1)[torch.arange(64), TARGETS]
    torch.testing.assert_close(of_classes(focal=2.0), -((1 - shares) ** 2) * shares.log())


def test_the_loss_of_validation_rows_is_the_plain_one() -> None:
    with torch.no_grad():
        found = recipe(class_weights=(1.0, 2.0, 5.0), focal=2.0, label_smoothing=0.1).loss_of_classes(SCORES, TARGETS)
    torch.testing.assert_close(found, F.cross_entropy(SCORES, TARGETS, reduction="none"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, NUMBERS.square()),
        ({"number_loss": "absolute"}, NUMBERS.abs()),
        ({"number_loss": "huber", "huber_delta": 0.5}, F.huber_loss(NUMBERS, 0 * NUMBERS, reduction="none", delta=0.5)),
        ({"number_loss": "quantile", "quantile": 0.9}, torch.where(NUMBERS < 0, -0.9 * NUMBERS, 0.1 * NUMBERS)),
    ],
)
def test_losses_of_numbers(settings: dict[str, Any], expected: torch.Tensor) -> None:
    torch.testing.assert_close(recipe(**settings).loss_of_numbers(NUMBERS, 0 * NUMBERS), expected)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"class_weights": (1.0,)}, "--class-weights"),
        ({"class_weights": (1.0, -1.0)}, "--class-weights"),
        ({"sampling": (1.0, -1.0)}, "--sampling"),
        ({"class_weights": "balanced", "sampling": "balanced"}, "give one of them"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"focal": -1.0}, "--focal"),
        ({"huber_delta": 0.0}, "--huber-delta"),
        ({"quantile": 1.0}, "--quantile"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_their_flag(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        recipe(**settings)


def table(folder: Path, column: list[Any]) -> Path:
    """A feature that says nothing, and a target."""
    noise = np.random.default_rng(0).normal(size=len(column))
    file = folder / "table.csv"
    file.write_text("noise,y\n" + "".join(f"{one:.6f},{each}\n" for one, each in zip(noise, column, strict=True)))
    return file


def on(file: Path, **settings: Any) -> TableCsv:
    data = CsvData(train_csv=str(file), target="y", val_fraction=0.5)
    quick = ModelOptim(name="adam", lr=0.05, weight_decay=0.0, schedule="constant")
    return TableCsv(data=data, epochs=8, optim=quick, model=Layers(name="mlp", hidden=(), dropout=0.0), **settings)


def test_balanced_weights_or_sampling_make_a_rare_class_as_likely_as_the_other(tmp_path: Path) -> None:
    file = table(tmp_path, ["yes" if row % 10 == 0 else "no" for row in range(600)])
    recalls = {}
    for name, settings in {
        "none": {},
        "weights": {"class_weights": "balanced"},
        "sampling": {"sampling": "balanced"},
    }.items():
        run = train(on(file, **settings), tmp_path / name)
        # The best is chosen by macro F1, which is chance here, and may be one that has hardly learned.
        probability = Run(run).predict(str(file), checkpoint="last")["probability"].to_pylist()
        recalls[name] = np.mean(probability)
        assert result(run)["steps"] > 0
    # The probability of the predicted class: nine in ten rows are `no`, and balance makes of that a half.
    assert recalls["none"] == pytest.approx(0.9, abs=0.05)
    assert recalls["weights"] == pytest.approx(0.5, abs=0.1)
    assert recalls["sampling"] == pytest.approx(0.5, abs=0.1)


def test_balanced_weights_are_a_function_of_the_training_rows_and_stored(tmp_path: Path) -> None:
    fitted = on(table(tmp_path, ["yes", "no", "no", "no"] * 20), class_weights="balanced").fitted()
    assert sum(fitted.class_rows) == len(fitted.dataset("train"))
    assert from_json(TableCsv, json.loads(json.dumps(to_json(fitted)))) == fitted
    fewer = replace(fitted, max_train_rows=10).fitted()
    assert sum(fewer.class_rows) == 10


def test_the_quantile_loss_predicts_the_quantile(tmp_path: Path) -> None:
    values = np.random.default_rng(1).exponential(size=1000).round(6).tolist()
    file = table(tmp_path, values)
    run = train(on(file, number_loss="quantile", quantile=0.9), tmp_path / "run")
    predicted = np.array(Run(run).predict(str(file))["prediction"].to_pylist())
    # Over four seeds 0.87 to 0.90; the median would have 0.5.
    assert np.mean(np.array(values) < predicted) == pytest.approx(0.9, abs=0.1)
    assert result(run)["best_metric"] == "val/loss"


def test_a_setting_for_other_targets_or_classes_is_refused(tmp_path: Path) -> None:
    words, numbers = ["yes", "no"] * 20, [0.5 + row for row in range(40)]
    for column, settings, says in (
        (words, {"class_weights": (1.0, 2.0, 3.0)}, "--class-weights: 3 for 2 classes, in order: no, yes"),
        (words, {"sampling": (1.0, 2.0, 3.0)}, "--sampling: 3 for 2 classes, in order: no, yes"),
        (words, {"number_loss": "huber"}, "--number-loss is for numbers, and the target has classes"),
        (numbers, {"focal": 2.0, "label_smoothing": 0.1}, "--label-smoothing and --focal: for classes, and the target"),
    ):
        with pytest.raises(UserError, match=says):
            on(table(tmp_path, column), **settings).fitted()
