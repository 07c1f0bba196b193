"""Losses of recipes that learn classes or numbers, as settings that such recipes share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from blitz.errors import require
from blitz.recipe import Recipe

_ROWS_AT_ONCE = 1 << 16

Labels = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]
"""Takes row numbers; returns the number of the class of each."""


@dataclass(frozen=True)
class LearnsTargets(Recipe):
    """A recipe with a choice of losses; class weights, label smoothing and focal loss do not apply in validation."""

    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """For classes: factors on the loss of a row by its class, one for each in their order; balanced gives each class
    the same weight in all, whatever its share of the rows."""
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
        weights, smoothing, level = self.class_weights, self.label_smoothing, self.quantile
        positive = isinstance(weights, str) or (len(weights) > 1 and min(weights) >= 0 and max(weights) > 0)
        require(positive, f"--class-weights is {weights}; give balanced, or two numbers or more that are not below 0")
        require(0 <= smoothing < 1, f"--label-smoothing is {smoothing}; it must be at least 0 and below 1")
        require(self.focal >= 0, f"--focal is {self.focal}; it must not be below 0")
        require(self.huber_delta > 0, f"--huber-delta is {self.huber_delta}; it must be above 0")
        require(0 < level < 1, f"--quantile is {level}; it must be between 0 and 1")

    def checked_losses(self, classes: tuple[str, ...], rows: int, labels: Labels) -> Self:
        """This recipe with the number of training rows of each class, if the weights of its classes need them.

        Raises:
            UserError: if a setting is not for what is learned, or the weights are not those of its classes.
        """
        of_classes = {
            "--class-weights": self.class_weights != "none",
            "--label-smoothing": self.label_smoothing > 0,
            "--focal": self.focal > 0,
        }
        given = [flag for flag, is_given in of_classes.items() if is_given]
        if not classes:
            require(not given, f"{' and '.join(given)}: for classes, and the target is a number; leave it out")
            return self
        require(self.number_loss == "squared", "--number-loss is for numbers, and the target has classes; leave it out")
        if not isinstance(self.class_weights, str):
            count, names = len(self.class_weights), ", ".join(classes[:8])
            require(count == len(classes), f"--class-weights: {count} for {len(classes)} classes, in order: {names}")
        if self.class_weights != "balanced":
            return self
        counts, rows = np.zeros(len(classes), np.int64), min(rows, self.max_train_rows or rows)
        for start in range(0, rows, _ROWS_AT_ONCE):
            some = labels(np.arange(start, min(rows, start + _ROWS_AT_ONCE)))
            counts += np.bincount(some.astype(np.int64), minlength=len(classes))
        return replace(self, class_rows=tuple(counts.tolist()))

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
