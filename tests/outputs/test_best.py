import pytest
import torch
import torch.nn.functional as F

from blitz.errors import UserError
from blitz.outputs.best import Best, deciding_metric
from blitz.outputs.metric_set import MetricSet
from blitz.outputs.metrics import Classification, Loss, Regression, Sums
from blitz.outputs.multi_label import MultiLabel
from blitz.recipes.digits import Digits

CLASSES = Classification(classes=("no", "yes"))


def counts(no: int, yes: int) -> Sums:
    """Rows of each class, all of them predicted right."""
    return {"confusion": torch.diag(torch.tensor([no, yes]))}


def test_accuracy_decides_unless_one_class_has_80_percent_of_the_rows() -> None:
    assert deciding_metric(Best(), CLASSES, counts(79, 21)).metric == "accuracy"
    rare = deciding_metric(Best(), CLASSES, counts(98, 2))
    assert (rare.metric, rare.higher_is_better) == ("f1_macro", True)
    assert rare.why == (
        "f1_macro decides which checkpoint is the best, not accuracy: 98.0% of the rows are 'no', which is the "
        "accuracy of always predicting that class"
    )


def test_a_named_metric_decides_whatever_the_recipe_and_the_classes_are() -> None:
    for name, higher in (("loss", False), ("val/accuracy", True), ("accuracy/yes", True)):
        chosen = deciding_metric(Best(name), CLASSES, counts(98, 2))
        assert (chosen.metric, chosen.higher_is_better) == (name.removeprefix("val/"), higher)
    assert deciding_metric(Best("weight", "max"), Loss(), {}).higher_is_better


def test_what_cannot_decide_is_refused_with_what_can() -> None:
    with pytest.raises(UserError, match=r"--best.metric is weight: say with --best.mode whether min or max is better"):
        Best("weight")
    with pytest.raises(UserError, match=r"--best.mode is max; name the metric with --best.metric"):
        Best(mode="max")
    with pytest.raises(UserError, match=r"there is no metric 'mae'; there are loss, accuracy$"):
        deciding_metric(Best("mae"), CLASSES, {}).value({"loss": 1.0, "accuracy": 0.5, "accuracy/yes": 0.5})


@pytest.mark.parametrize(
    ("metric", "extra"), [("acuracy", ()), ("mae", ()), ("accuracy/10", ()), ("auroc", ("auroc",)), ("f1/3", ("f1",))]
)
def test_a_metric_that_the_recipe_does_not_have_is_refused_before_the_first_step(
    metric: str, extra: tuple[str, ...]
) -> None:
    recipe = Digits(best=Best(metric, "max"), extra_metrics=extra)
    if extra:
        recipe.plan(100, 10)
        return
    with pytest.raises(UserError, match=rf"there is no metric '{metric}'; there are loss, accuracy, top_5_accuracy,"):
        recipe.plan(100, 10)


def test_metrics_declare_all_names_that_they_give() -> None:
    outputs, targets = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    names = ["f1", "auroc", "average_precision", "log_loss", "perplexity", "brier", "calibration_error"]
    for own, given, extra in (
        (Classification(tuple("abc")), targets, names),
        (Classification(("no", "yes")), targets % 2, [*names, "threshold"]),
        (MultiLabel(tuple("abc")), F.one_hot(targets, 3), ["f1", "auroc", "average_precision"]),
        (Regression((1.0, 2.0, 3.0), names=tuple("abc")), outputs.flip(0), ["mape", "quantile_loss_0.9"]),
    ):
        scores = outputs[:, :2] if isinstance(own, Classification) and len(own.classes) == 2 else outputs
        metrics = MetricSet.of(own, extra, lambda outputs, batch: {})
        computed = metrics.compute(metrics.sums(scores, {"targets": given}))
        assert {*computed} == {*(metrics.reported() or ())}
