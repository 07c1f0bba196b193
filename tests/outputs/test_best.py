import pytest
import torch

from blitz.errors import UserError
from blitz.outputs.best import Best, deciding_metric
from blitz.outputs.metrics import Classification, Loss, Sums

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
