"""Averages of a model's weights over its training, which are evaluated, stored and exported."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from blitz.data.plan import Plan
from blitz.recipe import Recipe
from blitz.training.checkpoint import Tensors
from blitz.training.sharding import is_divided

_TRAINED = "trained/"
"""Prefix of the weights that training continues with, stored beside the optimizer's state in a checkpoint."""


class WeightAverage:
    """An average that moves towards the weights after steps, by a share that is a function of the step.

    The exponential moving average moves after each step by 1 - decay (Polyak & Juditsky 1992). In step s, counted from
    1, the decay is at most s / (s + 9), so that the initial weights do not weigh on the first evaluations. Buffers,
    such as the statistics of a batch norm, are those of the model itself.

    Stochastic weight averaging moves at the end of every epoch from one on, to the mean of the weights at these ends.
    Its buffers are averaged too, as by torch's `AveragedModel` with `use_buffers`: statistics of the newest weights
    would not be those of the average, and no further pass over the training rows is needed.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, plan: Plan) -> None:
        self._decay, self._swa, self._plan = recipe.ema, recipe.swa, plan
        self._weights: Tensors = dict(model.named_parameters())
        if self._decay is None:
            kept = model.state_dict().keys()
            self._weights |= {
                name: buffer for name, buffer in model.named_buffers() if name in kept and buffer.is_floating_point()
            }
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._is_of_weights = self._decay is not None

    @classmethod
    def of(cls, model: nn.Module, recipe: Recipe, plan: Plan) -> "WeightAverage | None":
        """The average that a recipe asks for, if any."""
        return None if recipe.ema is None and recipe.swa.from_epoch is None else cls(model, recipe, plan)

    def _share(self, step: int) -> float:
        """How far the average moves towards the weights after step `step`, counted from 1; 1 gives the weights."""
        if self._decay is not None:
            return 1 - min(self._decay, step / (step + 9))
        count = self._swa.averaged(self._plan, step)
        return 1 / count if count > self._swa.averaged(self._plan, step - 1) else 0.0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after step `step`, counted from 1."""
        if share := self._share(step):
            # Parameters of a sharded model are divided and its buffers are not; torch takes no list of both.
            for divided in {is_divided(weight) for weight in self._weights.values()}:
                names = [name for name, weight in self._weights.items() if is_divided(weight) is divided]
                averages, weights = ([of[name] for name in names] for of in (self._averages, self._weights))
                torch._foreach_lerp_(averages, weights, share)
            self._is_of_weights = True

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Within this context the model's weights are the averages, if there are any yet."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        if not self._is_of_weights:
            return
        # Copied, not exchanged: compiled models and optimizers hold on to the memory of the weights.
        for name, weight in self._weights.items():
            average = self._averages[name].clone()
            self._averages[name].copy_(weight)
            weight.copy_(average)

    def trained(self) -> Tensors:
        """The weights that training continues with, if they are not those of the model, for a checkpoint.

        Not within `in_model`.
        """
        if not self._is_of_weights:
            return {}
        return {f"{_TRAINED}{name}": weight for name, weight in self._weights.items()}

    @torch.no_grad()
    def restore(self, stored: Tensors, step: int) -> None:
        """Take the model's weights, those of a checkpoint of step `step`, for averages; give it those of `trained`."""
        self._is_of_weights = self._decay is not None or self._swa.averaged(self._plan, step) > 0
        for name, weight in self._weights.items():
            self._averages[name].copy_(weight)
            # A run that was started without an average has no separate weights for training.
            weight.copy_(stored.get(f"{_TRAINED}{name}", weight))


def optimizer_state(stored: Tensors) -> Tensors:
    """The optimizer's state in a checkpoint, without the weights beside it."""
    return {name: tensor for name, tensor in stored.items() if not name.startswith(_TRAINED)}
