"""Metrics compared with those of scikit-learn and SciPy, from sums over any cut of the rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from scipy.stats import binomtest
from torch import Tensor

from blitz.outputs.metrics import Classification, Metrics, Regression, Sums, format_metric, wilson_interval

CLASSES = tuple("abcdefgh")


def added_up(metrics: Metrics, outputs: Tensor, targets: Tensor, *cuts: int) -> Sums:
    """Over the parts between the cuts, as over the shares of ranks."""
    sums: Sums = {}
    for start, stop in zip((0, *cuts), (*cuts, len(outputs)), strict=True):
        part = metrics.sums(outputs[start:stop], {"targets": targets[start:stop]})
        sums = {name: value + sums.get(name, 0) for name, value in part.items()}
    return sums


@pytest.fixture
def scores() -> tuple[Tensor, Tensor]:
    """Scores of 1,000 rows, and classes that have something to do with them; the last class never occurs."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(1000, len(CLASSES), generator=generator)
    noise = torch.randn(1000, len(CLASSES) - 1, generator=generator)
    return outputs, (outputs[:, :-1] + noise).argmax(1)


def test_metrics_of_classes_are_those_of_scikit_learn(scores: tuple[Tensor, Tensor]) -> None:
    outputs, targets = scores
    metrics = Classification(CLASSES, top_k=3)
    sums = added_up(metrics, outputs, targets, 1, 8, 500)
    found, labels = metrics.compute(sums), range(len(CLASSES))
    predicted = outputs.argmax(1).numpy()
    assert np.array_equal(sums["confusion"], sklearn.metrics.confusion_matrix(targets, predicted, labels=labels))
    assert found["accuracy"] == sklearn.metrics.accuracy_score(targets, predicted)
    top_3 = sklearn.metrics.top_k_accuracy_score(targets, outputs.numpy(), k=3, labels=labels)
    assert found["top_3_accuracy"] == top_3
    recalls = sklearn.metrics.recall_score(targets, predicted, average=None, labels=labels[:-1])
    assert [found[f"accuracy/{name}"] for name in CLASSES[:-1]] == pytest.approx(recalls)
    assert "accuracy/h" not in found


def test_sums_do_not_depend_on_how_the_rows_are_cut(scores: tuple[Tensor, Tensor]) -> None:
    whole, cut = (added_up(Classification(CLASSES), *scores, *cuts) for cuts in ((), (3, 333, 999)))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize(("classes", "reported"), [(2, False), (5, False), (6, True), (201, True)])
def test_top_five_accuracy_is_reported_for_more_than_five_classes(classes: int, reported: bool) -> None:
    metrics = Classification(tuple(map(str, range(classes))))
    # The class of each row has the fourth highest score.
    outputs, targets = torch.arange(classes).float().expand(10, classes), torch.full((10,), max(0, classes - 4))
    found = metrics.compute(metrics.sums(outputs, {"targets": targets}))
    assert found["accuracy"] == 0
    assert found.get("top_5_accuracy") == (1.0 if reported else None)


def outcomes() -> Iterator[tuple[int, int]]:
    yield from ((right, rows) for rows in (1, 2, 10, 359) for right in {0, 1, rows // 2, rows - 1, rows})
    yield 999_999, 1_000_000


def test_intervals_are_those_of_scipy() -> None:
    for right, rows in outcomes():
        expected = binomtest(right, rows).proportion_ci(0.95, method="wilson")
        assert wilson_interval(right, rows) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson_interval(0, 0) == (0, 1)


def test_intervals_hold_what_they_promise() -> None:
    random = np.random.default_rng(0)
    for share, rows in ((0.5, 30), (0.95, 60), (0.99, 400)):
        drawn = random.binomial(rows, share, size=4000)
        held = np.mean([low <= share <= high for low, high in (wilson_interval(int(one), rows) for one in drawn)])
        # Of a discrete count the coverage is not 95 % exactly, but near it.
        assert 0.92 < held < 0.98, (share, rows)


@pytest.mark.parametrize("shape", [(300,), (300, 1)])
def test_metrics_of_numbers_are_those_of_scikit_learn(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    outputs, noise = (torch.from_numpy(random.normal(size=shape)) for _ in range(2))
    targets = 0.7 * outputs + 0.3 * noise + 5
    metrics = Regression(units=(2.5,))
    found = metrics.compute(added_up(metrics, outputs, targets, 7, 200))
    in_units: Any = (2.5 * targets.ravel().numpy(), 2.5 * outputs.ravel().numpy())
    assert found["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(*in_units))
    assert found["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(*in_units))
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score(*in_units))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.0000"), (0.98333, "0.9833"), (0.00005123, "5.123e-05"), (-0.0004, "-0.0004"), (2.5e9, "2.5e+09")],
)
def test_a_metric_is_never_shown_as_empty(value: float, shown: str) -> None:
    assert format_metric(value) == shown
