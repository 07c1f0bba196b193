"""The exponential moving average of a model's weights, which is evaluated, stored and exported."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from blitz.training.checkpoint import Tensors

_TRAINED = "trained/"
"""Prefix of the weights that training continues with, stored beside the optimizer's state in a checkpoint."""


class WeightAverage:
    """After each step the average moves towards the weights by 1 - decay (Polyak & Juditsky 1992).

    In step s, counted from 1, the decay is at most s / (s + 9), so that the initial weights do not weigh on the first
    evaluations. Buffers, such as the statistics of a batch norm, are those of the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = dict(model.named_parameters())
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after step `step`, counted from 1."""
        decay = min(self._decay, step / (step + 9))
        torch._foreach_lerp_([*self._averages.values()], [*self._weights.values()], 1 - decay)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Within this context the model's weights are the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # Copied, not exchanged: compiled models and optimizers hold on to the memory of the weights.
        for name, weight in self._weights.items():
            average = self._averages[name].clone()
            self._averages[name].copy_(weight)
            weight.copy_(average)

    def trained(self) -> Tensors:
        """The weights that training continues with, for a checkpoint; not within `in_model`."""
        return {f"{_TRAINED}{name}": weight for name, weight in self._weights.items()}

    @torch.no_grad()
    def restore(self, stored: Tensors) -> None:
        """Take the model's weights, those of a checkpoint, for averages, and give it those of `trained`."""
        for name, weight in self._weights.items():
            self._averages[name].copy_(weight)
            # A run that was started without an average has no separate weights for training.
            weight.copy_(stored.get(f"{_TRAINED}{name}", weight))


def optimizer_state(stored: Tensors) -> Tensors:
    """The optimizer's state in a checkpoint, without the weights beside it."""
    return {name: tensor for name, tensor in stored.items() if not name.startswith(_TRAINED)}
