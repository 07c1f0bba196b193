"""Turning a PyTorch loss, `loss(outputs, targets)`, into one that gives one number a row."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from blitz.errors import UserError, require

LossFunction = Callable[[Any, Any], Tensor]


def per_row(loss: LossFunction) -> LossFunction:
    """The same loss without its reduction: what it gives has a first dimension, the rows.

    A module with `reduction`, as torch's losses are, is copied with `reduction="none"`, and a function that takes
    `reduction`, as those of `torch.nn.functional`, is given it. Any other must give a number a row by itself.

    The mean over the rows of the global batch is taken by the training loop. It is the plain mean: where
    `CrossEntropyLoss` has class weights, torch divides by the sum of the weights of the rows instead.

    Raises:
        UserError: if its reduction is not a mean, or if it has parameters to learn.
    """
    if isinstance(loss, nn.Module):
        require(
            not any(parameter.requires_grad for parameter in loss.parameters()),
            f"loss={_name(loss)} has parameters, which only a model's are learned: make them a part of the model",
        )
        reduction = getattr(loss, "reduction", None)
        if reduction is None:
            return loss
        require(
            reduction in ("mean", "none"),
            f"loss={_name(loss)} has reduction={reduction!r}, and the loop takes the mean over the rows; give "
            "reduction='mean', or a function that returns a number for each row",
        )
        unreduced = copy.deepcopy(loss)
        unreduced.reduction = "none"  # type: ignore[assignment]
        return unreduced
    if "reduction" in _parameters(loss):
        return partial(loss, reduction="none")  # type: ignore[call-arg]
    return loss


def row_losses(loss: LossFunction, outputs: Any, targets: Any, rows: int) -> Tensor:
    """The result of a loss made by `per_row`, as a tensor of shape (rows,): the mean over all other dimensions.

    Raises:
        UserError: if it gives one number for all rows, or no tensor.
    """
    losses = loss(outputs, targets)
    require(isinstance(losses, Tensor), f"loss={_name(loss)} gives {type(losses).__name__}; it must give a tensor")
    if losses.dim() == 0 or len(losses) != rows:
        raise UserError(
            f"loss={_name(loss)} gives a tensor of shape {tuple(losses.shape)} for {rows} rows; it must give a number "
            "for each row: take no mean, as reduction='none' does"
        )
    return losses.reshape(rows, -1).mean(1)


def require_rows_apart(loss: LossFunction, outputs: Any, targets: Any, rows: int) -> None:
    """Refuse outputs and targets of shapes that torch would broadcast, such as (rows, 1) and (rows,).

    What a loss gives a row is then of a shape that depends on the number of rows.

    Raises:
        UserError: if it is.
    """
    all_rows, first = loss(outputs, targets), loss(*(_first_row(each) for each in (outputs, targets)))
    if rows > 1 and all_rows.shape[1:] != first.shape[1:]:
        shapes = ", targets ".join(str(tuple(each.shape)) for each in (outputs, targets) if isinstance(each, Tensor))
        raise UserError(
            f"loss={_name(loss)} compares every row with every other: outputs {shapes}; give both the same shape"
        )


def _first_row(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value[:1]
    if isinstance(value, dict):
        return {name: _first_row(one) for name, one in value.items()}
    return type(value)(map(_first_row, value)) if isinstance(value, tuple | list) else value


def _parameters(loss: LossFunction) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return ()


def _name(loss: LossFunction) -> str:
    if isinstance(loss, partial):
        return _name(loss.func)
    return type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", type(loss).__name__)
