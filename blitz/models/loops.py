"""Loops whose number of iterations depends on the data, in models that can be exported."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Carried = tuple[Tensor, ...]


def while_loop(more: Callable[..., Tensor], turn: Callable[..., Carried], carried: Carried) -> Carried:
    """`carried = turn(*carried)` for as long as `more(*carried)`, a bool of shape (), is true.

    `turn` returns new tensors of the shapes, types and strides that it takes. In an exported model the loop is kept;
    without this torch would unroll it.

    Raises:
        ValueError: if a model is traced for TorchScript, which has no loops.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise ValueError("a loop whose number of iterations depends on the data cannot be traced")
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.while_loop import while_loop as exported

        within: Any = exported(more, turn, carried)
        return tuple(within)
    while bool(more(*carried)):
        carried = turn(*carried)
    return carried
