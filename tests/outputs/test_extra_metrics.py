"""Metrics on request compared with those of scikit-learn and sacrebleu, from sums over any cut of the rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import sklearn.metrics as sk
import torch
from sklearn.calibration import calibration_curve
from torch import Tensor

from blitz.errors import UserError
from blitz.outputs.chrf import chrf_counts, chrf_of
from blitz.outputs.metric_set import MetricSet
from blitz.outputs.metrics import Classification, Loss, Metrics, Regression, Sums
from blitz.recipe import Batch
from blitz.recipes.digits import Digits
from tests.running import result, train

TWO, FIVE = Classification(("no", "yes")), Classification(tuple("abcde"))
OF_CLASSES = ["f1", "auroc", "average_precision", "log_loss", "perplexity", "brier", "calibration_error"]


def nothing(outputs: Any, batch: Any) -> dict[str, Tensor]:
    return {}


def sums_of(metrics: MetricSet, outputs: Tensor, targets: Tensor) -> Sums:
    """Over three parts, as over the shares of ranks."""
    sums: Sums = {}
    for start, stop in ((0, 1), (1, 300), (300, len(outputs))):
        part = metrics.sums(outputs[start:stop], {"targets": targets[start:stop]})
        sums = {name: value + sums.get(name, 0) for name, value in part.items()}
    return sums


def values_of(own: Metrics, names: list[str], outputs: Tensor, targets: Tensor) -> dict[str, float]:
    metrics = MetricSet.of(own, names, nothing)
    return metrics.compute(sums_of(metrics, outputs, targets))


def scored(classes: int, rows: int = 2000, *, rare: float = 0.0) -> tuple[Tensor, Tensor]:
    """Scores, and classes that have something to do with them; of two the second with a share of about `rare`."""
    random = np.random.default_rng(0)
    outputs = torch.from_numpy(random.normal(size=(rows, classes)))
    noise = torch.from_numpy(random.normal(size=(rows, classes)))
    targets = (outputs + noise).argmax(1)
    if rare:
        margin = (outputs + noise)[:, 1] - (outputs + noise)[:, 0]
        targets = (margin > margin.quantile(1 - rare)).long()
    return outputs, targets


def rounded(outputs: Tensor) -> Any:
    """The log-odds of the second of two classes, as the bins have them."""
    return (outputs[:, 1] - outputs[:, 0]).half().double().numpy()


@pytest.mark.parametrize("swapped", [False, True])
def test_areas_of_two_classes_are_those_of_scikit_learn_for_scores_in_half_precision(swapped: bool) -> None:
    outputs, targets = scored(2, rare=0.1)
    # The rarer class is the positive one, whichever comes first.
    scores = rounded(outputs)
    given = (outputs.flip(1), 1 - targets) if swapped else (outputs, targets)
    values = values_of(TWO, ["auroc", "average_precision"], *given)
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(targets, scores), abs=1e-12)
    assert values["average_precision"] == pytest.approx(sk.average_precision_score(targets, scores), abs=1e-12)
    # Rounding merges scores that differ by less than 0.1 %.
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(targets, outputs[:, 1] - outputs[:, 0]), abs=1e-3)


def test_areas_of_many_classes_are_those_of_each_against_the_rest() -> None:
    outputs, targets = scored(5)
    values = values_of(FIVE, ["auroc", "average_precision"], outputs, targets)
    shares = outputs.softmax(1).numpy()
    # Bins of 6 bits of the mantissa: scores that differ by less than 1.6 % may count as equal.
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(targets, shares, multi_class="ovr"), abs=2e-3)
    for number, name in enumerate(FIVE.classes):
        expected = sk.average_precision_score(targets == number, shares[:, number])
        assert values[f"average_precision/{name}"] == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("own", [TWO, FIVE])
def test_f1_log_loss_brier_and_calibration_are_those_of_scikit_learn(own: Classification) -> None:
    classes = len(own.classes)
    outputs, targets = scored(classes)
    values = values_of(own, OF_CLASSES, outputs, targets)
    shares, predicted, labels = outputs.softmax(1).numpy(), outputs.argmax(1), range(classes)
    assert values["f1_macro"] == pytest.approx(sk.f1_score(targets, predicted, average="macro"))
    assert values["f1_micro"] == pytest.approx(sk.f1_score(targets, predicted, average="micro"))
    each = sk.f1_score(targets, predicted, average=None)
    assert [values[f"f1/{name}"] for name in own.classes] == pytest.approx(each)
    assert values["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(targets, predicted))
    assert values["log_loss"] == pytest.approx(sk.log_loss(targets, shares, labels=labels))
    assert values["perplexity"] == pytest.approx(np.exp(values["log_loss"]))
    given = shares[:, 1] if classes == 2 else shares
    assert values["brier"] == pytest.approx(sk.brier_score_loss(targets, given, labels=labels))
    right, confidence = (predicted == targets).numpy(), shares.max(1)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    rows = np.histogram(confidence, bins=np.linspace(0, 1, 16))[0]
    expected = (rows[rows > 0] * np.abs(accuracy - mean)).sum() / len(targets)
    assert values["calibration_error"] == pytest.approx(expected)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_threshold_is_the_one_with_the_highest_f1(swapped: bool) -> None:
    outputs, targets = scored(2, rare=0.1)
    given = (outputs.flip(1), 1 - targets) if swapped else (outputs, targets)
    metrics = MetricSet.of(TWO, ["threshold"], nothing)
    sums = sums_of(metrics, *given)
    scores, values = rounded(outputs), metrics.compute(sums)
    by_cut = {cut: sk.f1_score(targets, scores >= cut) for cut in np.unique(scores)}
    best = max(by_cut, key=lambda cut: (by_cut[cut], cut))
    assert values["f1_at_threshold"] == pytest.approx(by_cut[best])
    assert values["threshold"] == pytest.approx(1 / (1 + np.exp(-best)))
    assert metrics.ranking is not None
    at = metrics.ranking.at_threshold(sums)
    expected = sk.confusion_matrix(targets, scores >= best)
    assert at["confusion"] == (expected[::-1, ::-1] if swapped else expected).tolist()
    assert at["class"] == ("no" if swapped else "yes")
    # The same threshold on other rows.
    assert metrics.ranking.at_threshold(sums, at) == at
    assert metrics.ranking.f1_of(at) == pytest.approx(by_cut[best])


def test_errors_of_numbers_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    outputs, targets = (torch.from_numpy(random.normal(size=500)) for _ in range(2))
    own = Regression(units=(2.0,), means=(7.0,))
    values = values_of(own, ["mape", "quantile_loss_0.1", "quantile_loss_0.9"], outputs, targets)
    truth, given = 2 * targets + 7, 2 * outputs + 7
    assert values["mape"] == pytest.approx(sk.mean_absolute_percentage_error(truth, given))
    for level in (0.1, 0.9):
        expected = sk.mean_pinball_loss(truth, given, alpha=level)
        assert values[f"quantile_loss_{level}"] == pytest.approx(expected)


def test_chrf_is_that_of_sacrebleu_from_counts_that_add_up() -> None:
    translations = ["the cat sat on the mat", "a dog", "", "no overlap"]
    references = ["the cat is on the mat", "a dog runs far", "something", "xyz"]
    parts = [chrf_counts([one], [other]) for one, other in zip(translations, references, strict=True)]
    expected = sacrebleu.corpus_chrf(translations, [references]).score
    assert chrf_of(sum(parts, torch.zeros(6, 3, dtype=torch.int64))) == pytest.approx(expected)
    assert chrf_of(chrf_counts([""], ["a"])) == 0


def test_intervals_hold_the_metric_of_the_population_as_often_as_they_promise() -> None:
    metrics = MetricSet.of(TWO, ["auroc"], nothing)
    outputs, targets = scored(2, 20_000, rare=0.3)
    truth, held = metrics.compute(metrics.sums(outputs, {"targets": targets})), {"f1_macro": 0, "auroc": 0}
    for start in range(0, 20_000, 400):
        part = slice(start, start + 400)
        found = metrics.intervals(metrics.sums(outputs[part], {"targets": targets[part]}))
        for name in held:
            low, high = found[name]
            held[name] += low <= truth[name] <= high
    # Of 50 intervals of 95 % fewer than 42 would hold it once in 1,000 times.
    assert min(held.values()) >= 42


@pytest.mark.parametrize(
    ("own", "name", "says"),
    [
        (TWO, "mape", "'mape' is not known for this recipe; there are f1, auroc"),
        (Regression(), "quantile_loss_2", "'quantile_loss_2' is not known for this recipe; there are mape, quantile"),
        (Loss(), "auroc", "'auroc' is not known for this recipe; this recipe's outputs have none"),
        (FIVE, "threshold", "a threshold is for two classes"),
        (Classification(tuple(map(str, range(65)))), "auroc", "for at most 64 classes"),
    ],
)
def test_a_metric_that_is_not_for_the_outputs_is_refused(own: Metrics, name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        MetricSet.of(own, [name], nothing)


@dataclass(frozen=True)
class Named(Digits):
    """Digits with a metric of its own."""

    def row_metrics(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        return {"margin": outputs.topk(2, dim=1).values.diff(dim=1).neg().squeeze(1)}


def test_a_run_has_the_metrics_that_flags_and_its_recipe_name(tmp_path: Path) -> None:
    recipe = Named(max_steps=2, max_train_rows=64, max_eval_rows=50, extra_metrics=("auroc", "brier"))
    metrics = result(train(recipe, tmp_path))["metrics"]
    assert {"val/auroc", "val/auroc/3", "val/brier", "val/margin"} <= metrics.keys()
    assert "val/log_loss" not in metrics
