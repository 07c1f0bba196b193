"""Losses of recipes that learn classes, labels or numbers, and how often they take each class, as settings to share."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self, TypeVar

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from blitz.data.arrays import SampledDataset
from blitz.data.plan import Plan, Split
from blitz.data.sampling import Labels, count_of_classes, draws_of_classes, rows_in_class_order
from blitz.errors import require
from blitz.outputs.examples import Example
from blitz.outputs.multi_label import MultiLabel, label_examples
from blitz.recipe import Batch, Recipe

AnyRows = TypeVar("AnyRows", bound=SampledDataset)


@dataclass(frozen=True)
class LearnsTargets(Recipe):
    """A recipe with a choice of losses; class weights, label smoothing and focal loss do not apply in validation."""

    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """For classes: factors on the loss of a row by its class, one for each in their order; balanced gives each class
    the same weight in all, whatever its share of the rows."""
    sampling: Literal["shuffled", "balanced"] | tuple[float, ...] = "shuffled"
    """For classes: an epoch takes each row once (shuffled), or as many rows of each class, whatever its share of the
    rows (balanced), or classes as often as these numbers say, one for each in their order."""
    label_smoothing: float = 0.0
    """For classes: the share of probability that is distributed over all classes in training."""
    focal: float = 0.0
    """For classes: the power gamma of the focal loss, such as 2: rows that are predicted well count less."""
    number_loss: Literal["squared", "absolute", "huber", "quantile"] = "squared"
    """For numbers: squared predicts the mean, absolute the median, quantile another quantile of the target; huber is
    squared for small errors and absolute for large ones."""
    huber_delta: float = 1.0
    """For huber: in standard deviations of the target."""
    quantile: float = 0.5
    """For quantile: the share of rows whose target is below the prediction."""
    class_rows: Annotated[tuple[int, ...], tyro.conf.Suppress] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        smoothing, level = self.label_smoothing, self.quantile
        for flag, weights in (("--class-weights", self.class_weights), ("--sampling", self.sampling)):
            positive = isinstance(weights, str) or (len(weights) > 1 and min(weights) >= 0 and max(weights) > 0)
            require(positive, f"{flag} is {weights}; give balanced, or two numbers or more that are not below 0")
        require(
            (self.class_weights, self.sampling) != ("balanced", "balanced"),
            "--class-weights balanced and --sampling balanced each make rare classes count as much as frequent ones, "
            "together more; give one of them",
        )
        require(0 <= smoothing < 1, f"--label-smoothing is {smoothing}; it must be at least 0 and below 1")
        require(self.focal >= 0, f"--focal is {self.focal}; it must not be below 0")
        require(self.huber_delta > 0, f"--huber-delta is {self.huber_delta}; it must be above 0")
        require(0 < level < 1, f"--quantile is {level}; it must be between 0 and 1")

    def checked_losses(self, classes: tuple[str, ...], rows: int, labels: Labels) -> Self:
        """This recipe with the number of training rows of each class, if class weights or sampling need them.

        Raises:
            UserError: if a setting is not for what is learned, or numbers are not those of its classes.
        """
        of_classes = {
            "--class-weights": self.class_weights != "none",
            "--sampling": self.sampling != "shuffled",
            "--label-smoothing": self.label_smoothing > 0,
            "--focal": self.focal > 0,
        }
        given = [flag for flag, is_given in of_classes.items() if is_given]
        if not classes:
            what = "a row may have several labels" if self.labels else "the target is a number"
            require(not given, f"{' and '.join(given)}: for classes, and {what}; leave it out")
            squared = not self.labels or self.number_loss == "squared"
            require(squared, "--number-loss is for numbers, and labels are learned; leave it out")
            return self
        require(self.number_loss == "squared", "--number-loss is for numbers, and the target has classes; leave it out")
        for flag, numbers in (("--class-weights", self.class_weights), ("--sampling", self.sampling)):
            count, names = len(numbers), ", ".join(classes[:8])
            fits = isinstance(numbers, str) or count == len(classes)
            require(fits, f"{flag}: {count} for {len(classes)} classes, in order: {names}")
        if self.class_weights != "balanced" and self.sampling == "shuffled":
            return self
        rows = min(rows, self.max_train_rows or rows)
        return replace(self, class_rows=count_of_classes(labels, rows=rows, classes=len(classes)))

    def plan(self, train_rows: int, eval_rows: int) -> Plan:
        """The order of the data, of classes as often as `sampling` says."""
        plan = super().plan(train_rows, eval_rows)
        if self.sampling == "shuffled":
            return plan
        rows, frequencies = self.class_rows, self.sampling
        require(
            sum(rows) == plan.train_rows,
            f"--sampling was fitted on {sum(rows)} rows, and --max-train-rows is {plan.train_rows}; a sweep may not "
            "vary it here",
        )
        weights = [1.0] * len(rows) if isinstance(frequencies, str) else frequencies
        taken = [weight for count, weight in zip(rows, weights, strict=True) if count]
        require(max(taken) > 0, "--sampling: there is no row to train on of the classes that are above 0")
        return replace(plan, class_rows=rows, class_draws=draws_of_classes(rows, weights))

    def sampled(self, rows: AnyRows, split: Split) -> AnyRows:
        """The rows of a split; those to train on with their order by class, if classes are sampled."""
        if split == "train" and self.sampling != "shuffled" and self.class_rows:
            rows.rows_in_class_order = rows_in_class_order(rows.labels, rows=sum(self.class_rows))
        return rows

    def loss_of_classes(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row: cross entropy, (batch,), from scores of (batch, classes)."""
        # Only in training, so that validation losses can be compared between runs.
        if not torch.is_grad_enabled():
            return F.cross_entropy(scores, targets, reduction="none")
        losses = F.cross_entropy(scores, targets, reduction="none", label_smoothing=self.label_smoothing)
        if self.focal:
            # Lin et al. 2017, "Focal loss for dense object detection".
            shares = scores.softmax(1).gather(1, targets[:, None]).squeeze(1)
            losses = losses * (1 - shares).pow(self.focal)
        weights = self._weights()
        return losses * scores.new_tensor(weights)[targets] if weights else losses

    def _weights(self) -> tuple[float, ...]:
        if self.class_weights == "balanced":
            occurring = sum(rows > 0 for rows in self.class_rows)
            # Their mean over the rows is 1.
            return tuple(sum(self.class_rows) / (occurring * rows) if rows else 0.0 for rows in self.class_rows)
        return () if isinstance(self.class_weights, str) else self.class_weights

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that are learned, if a row may have any number of them."""
        metrics = self.metrics()
        return metrics.labels if isinstance(metrics, MultiLabel) else ()

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """See `Recipe.deployed`; of labels, the probability of each."""
        if not self.labels:
            return super().deployed(model, batch)
        outputs: Tensor = self.forward(model, self.preprocess(batch))
        return {"probabilities": outputs.sigmoid()}

    def signature(self) -> dict[str, Any]:
        """See `Recipe.signature`."""
        return {**super().signature(), **({"labels": list(self.labels)} if self.labels else {})}

    def examples(self, outputs: Any, batch: Batch) -> list[Example]:
        """See `Recipe.examples`."""
        if self.labels:
            return label_examples(outputs, batch["targets"], self.labels)
        return super().examples(outputs, batch)

    def loss_of_labels(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The loss of each label of each row: binary cross entropy, of the shape of both."""
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="none")

    def loss_of_numbers(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each number, in the shape of `targets`, which are standardised."""
        errors = outputs - targets
        match self.number_loss:
            case "squared":
                return errors.square()
            case "absolute":
                return errors.abs()
            case "huber":
                return F.huber_loss(outputs, targets, reduction="none", delta=self.huber_delta)
            case "quantile":
                return torch.maximum(-self.quantile * errors, (1 - self.quantile) * errors)

    @property
    def deciding_number(self) -> str:
        """The metric of numbers that decides which checkpoint is the best: a quantile's is its loss."""
        return "loss" if self.number_loss == "quantile" else "rmse"
