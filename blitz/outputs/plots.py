"""Plots of a small model's outputs over its rows.

Matplotlib takes a second to import, and most runs draw nothing, so it is imported only when drawing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from blitz.extras import extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

_CURVE_POINTS, _GRID_SIDE = 300, 300


def fitted_curve(model: nn.Module, inputs: Array, targets: Array) -> "Figure":
    """The points, `inputs` and `targets` of shape (rows, 1), and the model's curve."""
    with extra("report", what="a picture"):
        from matplotlib.figure import Figure

    x = np.linspace(inputs.min(), inputs.max(), _CURVE_POINTS, dtype=np.float32)[:, None]
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.scatter(inputs, targets, s=8, alpha=0.5, label="points")
    axes.plot(x, model(torch.from_numpy(x)).numpy(), color="C3", label="model")
    axes.legend()
    return figure


def rate_curve(rates: Sequence[float], losses: Sequence[float], proposed: float | None) -> "Figure":
    """The training loss at each learning rate, and the rate that is proposed."""
    with extra("report", what="a picture"):
        from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses)
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    # What diverges at the end would hide the rest.
    low, start = min(losses), losses[0]
    axes.set_ylim(low - 0.1 * abs(start - low), start + max(abs(start - low), 0.1 * abs(start)))
    if proposed is not None:
        axes.axvline(proposed, color="C3", linestyle="--", label=f"proposed: {proposed:g}")
        axes.legend()
    return figure


def decision_regions(model: nn.Module, inputs: Array, targets: Array, *, classes: Sequence[str]) -> "Figure":
    """The points, `inputs` of shape (rows, 2), in the colours of their classes, over the model's decision regions.

    `targets` are class numbers of shape (rows,).
    """
    with extra("report", what="a picture"):
        from matplotlib.figure import Figure

    low, high = inputs.min(0) - 1, inputs.max(0) + 1
    x, y = np.meshgrid(*(np.linspace(low[axis], high[axis], _GRID_SIDE, dtype=np.float32) for axis in (0, 1)))
    won = model(torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1))).argmax(1).numpy().reshape(x.shape)
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    colours = [f"C{number}" for number in range(len(classes))]
    axes.contourf(x, y, won, levels=np.arange(len(classes) + 1) - 0.5, colors=colours, alpha=0.25)
    for number, name in enumerate(classes):
        points = inputs[targets == number]
        axes.scatter(points[:, 0], points[:, 1], s=8, color=colours[number], label=name)
    axes.legend()
    return figure
