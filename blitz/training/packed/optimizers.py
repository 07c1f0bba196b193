"""torch's optimizers on stacked weights: one update for all lanes of a kind, each with its own settings.

The formulas are those of `torch.optim`, and so are the names of the state.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

import torch
from torch import Tensor

from blitz.data.plan import Plan
from blitz.optim import Optim
from blitz.training.optimizer import State, learning_rate, momentum_of

# The defaults of `torch.optim` and of `torch.nn.utils.clip_grad_norm_`.
_EPS, _CLIP_EPS = 1e-8, 1e-6


def kind_of(settings: Optim) -> str:
    """Lanes of one kind are updated as one; a pack holds them side by side."""
    family = "sgd" if settings.name == "momentum" else settings.name
    return f"{family} with momentum" if momentum_of(settings) else family


def why_not_stacked(settings: Optim) -> str | None:
    """Why trials with this optimizer cannot be packed; None if they can."""
    if settings.custom is not None:
        return f"{settings.custom} is no optimizer that a stack has"
    if settings.name == "muon":
        return "muon is no optimizer that a stack has"
    if settings.layer_decay is not None or not settings.decay_all:
        return "its optimizer has groups of parameters by rule"
    return None


class StackedOptimizer:
    """The optimizers of all lanes.

    `settings` are in the order of the lanes, those of a kind side by side; `weights` are (lanes, parameters).
    """

    def __init__(self, settings: Sequence[Optim], weights: Tensor, plan: Plan) -> None:
        self._plan = plan
        self._groups, first = [], 0
        for kind, members in groupby(settings, key=kind_of):
            own = list(members)
            part = weights[first : first + len(own)]
            state = {name: torch.zeros_like(part) for name in _KINDS[kind].names}
            self._groups.append(_KINDS[kind](own, state, part))
            first += len(own)
        self._take(weights)

    def _take(self, weights: Tensor) -> None:
        self._weights = weights
        self._settings = settings = [one for group in self._groups for one in group.settings]
        self._constant = all(one.schedule == "constant" and not one.warms_up for one in settings)
        self._lr = _column([one.lr for one in settings], weights.device)
        clips = [one.grad_clip_norm for one in settings]
        self._most = _column([clip or torch.inf for clip in clips], weights.device) if any(clips) else None

    def rates(self, step: int) -> Tensor:
        """The learning rate of each lane in step `step`, counted from 0: (lanes, 1)."""
        if self._constant:
            return self._lr
        rates = [learning_rate(one, step, self._plan) for one in self._settings]
        return _column(rates, self._weights.device)

    @torch.no_grad()
    def step(self, gradients: Tensor, step: int) -> None:
        """Update the weights in step `step`, counted from 0; `gradients`, (lanes, parameters), are used up."""
        if self._most is not None:
            norms = gradients.norm(dim=1, keepdim=True)
            gradients.mul_((self._most / (norms + _CLIP_EPS)).clamp_(max=1).to(gradients.dtype))
        rates, first = self.rates(step), 0
        for group in self._groups:
            lanes = slice(first, first + len(group.settings))
            group.update(self._weights[lanes], gradients[lanes], rates[lanes], step + 1)
            first = lanes.stop

    def keep(self, rows: Sequence[int], weights: Tensor) -> None:
        """Keep only these lanes, in ascending order; `weights` are theirs."""
        groups, first = [], 0
        for group in self._groups:
            after = first + len(group.settings)
            if own := [row - first for row in rows if first <= row < after]:
                groups.append(group.kept(own))
            first = after
        self._groups = groups
        self._take(weights)

    def state_of(self, row: int) -> State:
        """The tensors of one lane by the names that torch has, each of shape (parameters,): views."""
        for group in self._groups:
            if row < len(group.settings):
                return {name: value[row] for name, value in group.state.items()}
            row -= len(group.settings)
        raise IndexError(row)

    def state(self) -> list[State]:
        """The tensors of each kind of lanes by the names that torch has, each of shape (lanes, parameters)."""
        return [group.state for group in self._groups]

    def restore(self, stored: Sequence[State]) -> None:
        """Take what `state` gave for the same lanes."""
        for group, state in zip(self._groups, stored, strict=True):
            for name, value in group.state.items():
                value.copy_(state[name])

    def counts_steps(self, row: int) -> bool:
        """Whether torch's optimizer of this lane keeps the number of its steps."""
        return self._settings[row].name not in ("sgd", "momentum")


def _column(values: list[float], device: torch.device) -> Tensor:
    # float64 until they are combined, as torch's own optimizers compute with their settings.
    return torch.tensor(values, dtype=torch.float64, device=device)[:, None]


class _Group(ABC):
    """Lanes of one kind. Settings are columns of shape (lanes, 1), all else is (lanes, parameters)."""

    names: ClassVar[tuple[str, ...]] = ()
    """The names of the state's tensors."""

    def __init__(self, settings: list[Optim], state: State, like: Tensor) -> None:
        self.settings, self.state = settings, state
        # Device and dtype of the weights.
        self._like = like.new_empty(0)
        device, dtype = like.device, like.dtype
        self.decays = any(one.weight_decay for one in settings)
        self.decay = _column([one.weight_decay for one in settings], device)
        self.momentum = _column([momentum_of(one) for one in settings], device).to(dtype)
        self.alpha_rest = (1 - _column([one.alpha for one in settings], device)).to(dtype)
        self.betas = [_column([one.betas[i] for one in settings], device) for i in range(2)]
        self.beta_rests = [(1 - beta).to(dtype) for beta in self.betas]

    def kept(self, rows: list[int]) -> "_Group":
        """These lanes alone."""
        state = {name: value[rows] for name, value in self.state.items()}
        return type(self)([self.settings[row] for row in rows], state, self._like)

    def update(self, weights: Tensor, gradients: Tensor, rates: Tensor, step: int) -> None:
        """Take step `step`, counted from 1, in place; `rates` are float64."""
        if self.decays:
            gradients.addcmul_(weights, self.decay.to(weights.dtype))
        self.move(weights, gradients, rates, step)

    @abstractmethod
    def move(self, weights: Tensor, gradients: Tensor, rates: Tensor, step: int) -> None:
        """The same, with the decay of the weights already in the gradients."""


class _SGD(_Group):
    def move(self, weights: Tensor, gradients: Tensor, rates: Tensor, step: int) -> None:
        weights.addcmul_(gradients, -rates.to(weights.dtype))


class _Momentum(_Group):
    names: ClassVar[tuple[str, ...]] = ("momentum_buffer",)

    def move(self, weights: Tensor, gradients: Tensor, rates: Tensor, step: int) -> None:
        buffer = self.state["momentum_buffer"].mul_(self.momentum).add_(gradients)
        weights.addcmul_(buffer, -rates.to(weights.dtype))


class _RMSprop(_Group):
    names: ClassVar[tuple[str, ...]] = ("square_avg",)

    def scaled(self, gradients: Tensor) -> Tensor:
        """Gradients over the root of the mean of their squares."""
        mean = self.state["square_avg"].lerp_(gradients.square(), self.alpha_rest)
        return gradients.div_(mean.sqrt().add_(_EPS))

    def move(self, weights: Tensor, gradients: Tensor, rates: Tensor, step: int) -> None:
        weights.addcmul_(self.scaled(gradients), -rates.to(weights.dtype))


class _RMSpropMomentum(_RMSprop):
    names: ClassVar[tuple[str, ...]] = ("square_avg", "momentum_buffer")

    def move(self, weights: Tensor, gradients: Tensor, rates: Tensor, step: int) -> None:
        buffer = self.state["momentum_buffer"].mul_(self.momentum).add_(self.scaled(gradients))
        weights.addcmul_(buffer, -rates.to(weights.dtype))


class _Adam(_Group):
    names: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    def move(self, weights: Tensor, gradients: Tensor, rates: Tensor, step: int) -> None:
        mean = self.state["exp_avg"].lerp_(gradients, self.beta_rests[0])
        square = self.state["exp_avg_sq"].lerp_(gradients.square_(), self.beta_rests[1])
        stride = (rates / (self.betas[0].pow(step) - 1)).to(weights.dtype)
        root = (1 - self.betas[1].pow(step)).sqrt_().to(weights.dtype)
        weights.addcdiv_(mean * stride, square.sqrt().div_(root).add_(_EPS))


class _AdamW(_Adam):
    def update(self, weights: Tensor, gradients: Tensor, rates: Tensor, step: int) -> None:
        if self.decays:
            weights.mul_((1 - rates * self.decay).to(weights.dtype))
        self.move(weights, gradients, rates, step)


_KINDS: dict[str, type[_Group]] = {
    "sgd": _SGD,
    "sgd with momentum": _Momentum,
    "rmsprop": _RMSprop,
    "rmsprop with momentum": _RMSpropMomentum,
    "adam": _Adam,
    "adamw": _AdamW,
}
