"""The models of all lanes as one: stacked weights, and passes over a batch that all lanes share."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from blitz.recipe import Batch, Recipe
from blitz.training.checkpoint import Tensors
from blitz.training.model import build_model, forward_and_loss
from blitz.training.world import World

_KEPT_BYTES = 32 << 20
"""Activations saved for backward by a pass over a batch on a CPU. Measured on LeNet: 16 lanes of 128 rows at once take
1.3 times as long as four passes of four lanes; 16 lanes of 32 rows at once are the fastest."""


class Stack:
    """One lane for each of `recipes`, which differ in nothing but `optim` and `init_seed`.

    Raises:
        ValueError: if the model has no trained parameters, or some of different types.
    """

    def __init__(self, recipes: Sequence[Recipe], world: World) -> None:
        seeds = list(dict.fromkeys(recipe.init_seed for recipe in recipes))
        first_of = {recipe.init_seed: recipe for recipe in reversed(recipes)}
        models = [build_model(first_of[seed], world) for seed in seeds]
        indices = [seeds.index(recipe.init_seed) for recipe in recipes]
        self.model = models[0]
        trained = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        if len({one.dtype for one in trained.values()}) != 1:
            raise ValueError("its trained parameters are of several types, or there are none")
        self._shapes = {name: one.shape for name, one in trained.items()}
        self._sizes = [one.numel() for one in trained.values()]
        tensors = [_tensors(model) for model in models]
        rows = [torch.cat([each[name].flatten() for name in trained]) for each in tensors]
        self.weights = torch.stack(rows)[indices].requires_grad_()
        """(lanes, parameters), a leaf: all that is trained of a lane lies side by side."""
        self.fixed = {
            name: torch.stack([each[name] for each in tensors])[indices] for name in tensors[0] if name not in trained
        }
        """Buffers and frozen parameters, each (lanes, …)."""
        self._pass = _Pass(recipes[0], self.model, world.device)
        self._stored = _stored_names(self.model)
        self._world = world
        self._together: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.weights)

    def backward(self, batch: Batch, weights: Tensor, choices: Mapping[str, Any]) -> Tensor:
        """Add each lane's gradient of the weighted sum of its losses on a batch of a step; that sum, (lanes,).

        Random numbers of a pass are drawn once, for all lanes: those of the solo run.
        """

        def loss(row: Tensor, fixed: Tensors) -> Tensor:
            losses = self._forward(row, fixed, batch, choices)[1]
            return torch.dot(losses, weights.to(losses.dtype))

        # Lanes of one pass share a batch, but their activations saved for backward must fit the caches.
        rows = len(weights)
        if rows not in self._together:
            self._together[rows] = self._lanes_together(batch, choices)
        size, device = self._together[rows], self._world.device
        drawn, sums = _draws_so_far(device), []
        for first in range(0, len(self), size):
            if first:
                _draw_again(drawn, device)
            lanes = slice(first, first + size)
            part = vmap(loss, randomness="same")(self.weights[lanes], {n: one[lanes] for n, one in self.fixed.items()})
            part.sum().backward()
            sums.append(part.detach())
        return torch.cat(sums)

    def _lanes_together(self, batch: Batch, choices: Mapping[str, Any]) -> int:
        """The number of lanes in one pass: as many as save no more than some megabytes of activations for backward."""
        if self._world.device.type != "cpu":
            return len(self)
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        drawn = _draws_so_far(self._world.device)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = self._pass(batch, choices)
        _draw_again(drawn, self._world.device)
        del outputs
        return max(1, _KEPT_BYTES // max(1, sum(kept.values())))

    def outputs(self, batch: Batch) -> tuple[Any, Tensor]:
        """Outputs, each tensor of them (lanes, …), and losses, (lanes, batch)."""

        def forward(row: Tensor, fixed: Tensors) -> tuple[Any, Tensor]:
            return self._forward(row, fixed, batch, {})

        outputs: tuple[Any, Tensor] = vmap(forward, randomness="same")(self.weights, self.fixed)
        return outputs

    def _forward(self, row: Tensor, fixed: Tensors, batch: Batch, choices: Mapping[str, Any]) -> tuple[Any, Tensor]:
        """Outputs and losses of one lane."""
        tensors = {f"model.{name}": one for name, one in {**self.named(row), **fixed}.items()}
        outputs: tuple[Any, Tensor] = functional_call(self._pass, tensors, (batch, choices))
        return outputs

    def named(self, row: Tensor) -> Tensors:
        """The parts of (parameters,) by the names of the parameters, in their shapes: views."""
        parts = zip(self._shapes.items(), row.split(self._sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    def state_dict(self, row: Tensor, fixed: Tensors) -> Tensors:
        """The `state_dict` of a lane's model, from its weights and the rest."""
        tensors = {**self.named(row), **fixed}
        return {name: tensors[own] for name, own in self._stored.items()}

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these lanes."""
        self.weights = self.weights.detach()[rows].requires_grad_()
        self.fixed = {name: one[rows] for name, one in self.fixed.items()}


class _Pass(nn.Module):
    """The module for `functional_call`, since a recipe may do anything with its model."""

    def __init__(self, recipe: Recipe, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model, self._recipe, self._device = model, recipe, device

    def forward(self, batch: Batch, choices: Mapping[str, Any]) -> tuple[Any, Tensor]:
        """Outputs and losses of shape (batch,)."""
        forward = partial(self._recipe.forward, self.model)
        return forward_and_loss(self._recipe, forward, batch, self._device, choices)


def _draws_so_far(device: torch.device) -> list[Tensor]:
    """The state of the generators that a pass draws from."""
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]


def _draw_again(states: list[Tensor], device: torch.device) -> None:
    """Restore the state of the generators."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)


def _tensors(model: nn.Module) -> Tensors:
    """Parameters and buffers, each under its first name."""
    return {name: one.detach() for name, one in [*model.named_parameters(), *model.named_buffers()]}


def _stored_names(model: nn.Module) -> dict[str, str]:
    """For each name of the state dict the first name of its tensor: a tensor may have several."""
    first: dict[Tensor, str] = {}
    for name, one in [*model.named_parameters(), *model.named_buffers()]:
        first.setdefault(one, name)
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    names = {name: first[one] for name, one in every}
    return {name: names[name] for name in model.state_dict()}
