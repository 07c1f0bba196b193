"""Turning a PyTorch loss, `loss(outputs, targets)`, into one that gives one number a row."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from blitz.errors import UserError

LossFunction = Callable[[Any, Any], Tensor]


def per_row(loss: LossFunction) -> LossFunction:
    """The same loss without its reduction: what it gives has a first dimension, the rows.

    A module with `reduction`, as torch's losses are, is copied with `reduction="none"`, and a function that takes
    `reduction`, as those of `torch.nn.functional`, is given it. Any other must give a number a row by itself.

    The mean over the rows of the global batch is taken by the training loop. It is the plain mean: where
    `CrossEntropyLoss` has class weights, torch divides by the sum of the weights of the rows instead.
    """
    if isinstance(loss, nn.Module):
        if not hasattr(loss, "reduction"):
            return loss
        unreduced = copy.deepcopy(loss)
        unreduced.reduction = "none"  # type: ignore[assignment]
        return unreduced
    if "reduction" in _parameters(loss):
        return partial(loss, reduction="none")  # type: ignore[call-arg]
    return loss


def row_losses(loss: LossFunction, outputs: Any, targets: Any, rows: int) -> Tensor:
    """The result of a loss made by `per_row`, as a tensor of shape (rows,): the mean over all other dimensions.

    Raises:
        UserError: if it gives one number for all rows.
    """
    losses = loss(outputs, targets)
    if losses.dim() == 0 or len(losses) != rows:
        raise UserError(
            f"loss={_name(loss)} gives a tensor of shape {tuple(losses.shape)} for {rows} rows; it must give a number "
            "for each row: take no mean, as reduction='none' does"
        )
    return losses.reshape(rows, -1).mean(1)


def _parameters(loss: LossFunction) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return ()


def _name(loss: LossFunction) -> str:
    return type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", type(loss).__name__)
