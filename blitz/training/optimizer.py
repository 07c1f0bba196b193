"""torch's optimizers for a recipe's parameter groups, at learning rates that are a function of the step."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _NormBase

from blitz.data.plan import Plan
from blitz.errors import require
from blitz.optim import Group, Optim
from blitz.recipe import Recipe
from blitz.training.parameter_rules import custom_optimizer, hidden_matrices, torch_groups
from blitz.training.sharding import is_divided

State = dict[str, Tensor]

_NUMBER = "number:"
"""Prefix of the optimizer's state that is a number rather than a tensor."""


class Optimizers:
    """The optimizers of a model: one for each parameter group that has its own settings, and one for all others.

    Raises:
        UserError: if the recipe's groups leave parameters out, hold some twice, or train nothing in the first step.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, plan: Plan) -> None:
        self._model, self._plan, self._recipe = model, plan, recipe
        self._groups = recipe.parameter_groups(model, plan.steps_per_epoch)
        _require_whole(recipe, model, self._groups)
        # A recipe may already have put a norm into eval mode itself.
        grouped = {parameter for group in self._groups for parameter in group.parameters}
        self._norms = [
            module
            for module in model.modules()
            if isinstance(module, _NormBase) and module.training and not grouped.isdisjoint(module.parameters())
        ]
        self._learned: list[Group] = []
        ever = [group for group in self._groups if group.from_step is not None]
        shared = [group for group in ever if group.optim is None]
        own = [(group.optim, [group]) for group in ever if group.optim is not None]
        each = [(recipe.optim, shared), *own] if shared else own
        self._each = [
            (settings, optimizer)
            for settings, groups in each
            for optimizer in build_optimizers(settings, groups, model)
        ]

    def freeze(self, step: int) -> bool:
        """Freeze the parameters that are not trained in `step`; returns whether that is a change."""
        learned = [group for group in self._groups if group.from_step is not None and step >= group.from_step]
        if learned == self._learned:
            return False
        self._learned = learned
        for group in self._groups:
            for parameter in group.parameters:
                parameter.requires_grad_(group in learned)
        for norm in self._norms:
            norm.train(any(parameter.requires_grad for parameter in norm.parameters()))
        return True

    def clip(self, *, look: bool) -> bool:
        """Clip gradients as the settings say; with `look`, returns whether all are finite."""
        finite = True
        # Two optimizers may share their settings, and so the norm.
        for settings in {id(settings): settings for settings, _ in self._each}.values():
            clip = settings.grad_clip_norm
            if clip or look:
                groups = [group for own, one in self._each if own is settings for group in one.param_groups]
                parameters = [parameter for group in groups for parameter in group["params"]]
                norm = nn.utils.clip_grad_norm_(parameters, clip or math.inf)
                # Of a sharded model every rank has a part of the norm.
                whole = norm.full_tensor() if is_divided(norm) else norm
                finite = finite and (not look or bool(whole.isfinite()))
        return finite

    def step(self, step: int) -> None:
        """Take step `step`, counted from 0."""
        for settings, optimizer in self._each:
            rate = self._recipe.swa.rate(self._plan, step) if settings is self._recipe.optim else None
            rate = learning_rate(settings, step, self._plan) if rate is None else rate
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_factor"]
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for _, optimizer in self._each:
            optimizer.zero_grad(set_to_none=True)

    def rates(self) -> dict[str, float]:
        """The learning rate of the last step as `lr`, and for each of several groups as `lr/<name>`."""
        learned = {group.name for group in self._learned}
        groups = [group for _, optimizer in self._each for group in optimizer.param_groups]
        # The first of a name has the highest rate.
        firsts = {group["name"]: group["lr"] for group in reversed(groups)}
        rates = {f"lr/{name}": firsts[name] if name in learned else 0.0 for name in dict.fromkeys(firsts)}
        return {"lr": groups[0]["lr"], **(rates if len(rates) > 1 else {})}

    def state(self) -> State:
        """The optimizers' tensors by name, as `exp_avg/<parameter>`; settings are the recipe's and not among them."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self._model.named_parameters()}
        return {
            f"{key}/{names[parameter]}" if isinstance(value, Tensor) else f"{_NUMBER}{key}/{names[parameter]}": (
                value if isinstance(value, Tensor) else torch.tensor(value)
            )
            for _, optimizer in self._each
            for parameter, state in optimizer.state.items()
            for key, value in state.items()
            if isinstance(value, Tensor | int | float)
        }

    def load_state(self, stored: State) -> None:
        """Restore what `state` returned."""
        parameters = dict(self._model.named_parameters())
        of_each: dict[Tensor, State] = {}
        for name, value in stored.items():
            key, _, parameter_name = name.partition("/")
            parameter = parameters[parameter_name]
            if value.shape == parameter.shape and not is_divided(value):
                # In the parameter's memory format: fused updates walk both in memory order.
                value = torch.empty_like(parameter, device="cpu").copy_(value)
            of_each.setdefault(parameter, {})[key.removeprefix(_NUMBER)] = (
                value.item() if key.startswith(_NUMBER) else value  # type: ignore[assignment]
            )
        for _, optimizer in self._each:
            ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {n: of_each[parameter] for n, parameter in enumerate(ordered) if parameter in of_each}
            # torch knows which of its tensors belongs on which device.
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def build_optimizers(settings: Optim, groups: Sequence[Group], model: nn.Module) -> list[optim.Optimizer]:
    """torch's optimizers of some groups of a model's parameters: one, or for Muon one beside it for what is no matrix.

    Raises:
        UserError: if the class that the settings name does not exist or cannot be used, or if Muon has no matrix.
    """
    if settings.custom is not None:
        return [custom_optimizer(settings, torch_groups(settings, groups, model))]
    if settings.name != "muon":
        return [build_optimizer(settings, torch_groups(settings, groups, model))]
    matrices = hidden_matrices(model)
    split = [
        [replace(group, parameters=[p for p in group.parameters if (p in matrices) == is_matrix]) for group in groups]
        for is_matrix in (True, False)
    ]
    muon, rest = ([group for group in each if group.parameters] for each in split)
    require(bool(muon), "--optim.name muon: the model has no matrices before its head; take another optimizer")
    # Updates as large as AdamW's, so that both share one learning rate.
    found: list[optim.Optimizer] = [
        optim.Muon(
            torch_groups(settings, muon, model),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
    ]
    return [*found, build_optimizer(settings, torch_groups(settings, rest, model))] if rest else found


def build_optimizer(settings: Optim, parameters: Iterable[Any]) -> optim.Optimizer:
    """torch's optimizer of parameters or of torch's own groups of them.

    Fused if torch has that: one call a step, not a loop over the parameters.
    """
    lr, decay, momentum = settings.lr, settings.weight_decay, momentum_of(settings)
    match settings.name:
        case "sgd" | "momentum":
            given = list(parameters)
            each = [one for part in given for one in (part["params"] if isinstance(part, dict) else [part])]
            # torch has no fused SGD for tensors that are divided over ranks.
            fused = not any(is_divided(one) for one in each)
            sgd = optim.SGD(given, lr=lr, momentum=momentum, weight_decay=decay, fused=fused)
            if momentum:
                # torch would create these buffers at the first gradient, but the fused update cannot mix parameters
                # that have one with some that get it for the first time.
                for group in sgd.param_groups:
                    for parameter in group["params"]:
                        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return sgd
        case "rmsprop":
            return optim.RMSprop(parameters, lr=lr, alpha=settings.alpha, momentum=momentum, weight_decay=decay)
        case "adam":
            return optim.Adam(parameters, lr=lr, betas=settings.betas, weight_decay=decay, fused=True)
        case "adamw" | "muon":
            return optim.AdamW(parameters, lr=lr, betas=settings.betas, weight_decay=decay, fused=True)


def momentum_of(settings: Optim) -> float:
    """The momentum of sgd, momentum and rmsprop; by default 0.9 for `momentum` and 0 for the others."""
    if settings.momentum is None:
        return 0.9 if settings.name == "momentum" else 0.0
    return settings.momentum


def learning_rate(settings: Optim, step: int, plan: Plan) -> float:
    """The learning rate of step `step`, counted from 0.

    Linear warm-up, then the schedule. Cosine is half a cosine to 0 (Loshchilov & Hutter 2017, without restarts),
    one_cycle that of Smith & Topin 2017 as `torch.optim.lr_scheduler.OneCycleLR` has it, coslog RealMLP's with 4 cycles
    (Holzmüller et al. 2024).
    """
    end, peak = settings.schedule_steps(plan), settings.lr
    warmup = settings.warmup_steps if settings.warmup_fraction is None else round(settings.warmup_fraction * end)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, end - warmup)
    match settings.schedule:
        case "constant":
            return peak
        case "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return peak * (1 - progress)
        case "polynomial":
            return peak * float((1 - progress) ** settings.power)
        case "step":
            return peak * float(settings.step_factor) ** int(step / (settings.step_epochs * plan.steps_per_epoch))
        case "wsd":
            return peak * min(1.0, (end - step) / max(1, round(settings.decay_fraction * end)))
        case "coslog":
            return peak * 0.5 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * progress)))
        case "exponential":
            return peak * math.pow(10, -8 * (1 - progress))
        case "one_cycle":
            return peak * _one_cycle(step, end)


def _one_cycle(step: int, end: int) -> float:
    """Up a half cosine from 1/25 to 1 in 30 % of the steps, then down another to 1/250,000."""
    up = 0.3 * end - 1
    start, stop, share = (
        (1 / 25, 1.0, step / max(up, 1e-9)) if step <= up else (1.0, 4e-6, (step - up) / (end - 1 - up))
    )
    return stop + (start - stop) * 0.5 * (1 + math.cos(math.pi * share))


def _require_whole(recipe: Recipe, model: nn.Module, groups: Sequence[Group]) -> None:
    groups_of: dict[nn.Parameter, list[str]] = {}
    for group in groups:
        for parameter in group.parameters:
            groups_of.setdefault(parameter, []).append(group.name)
    for name, parameter in model.named_parameters():
        found = groups_of.get(parameter, [])
        require(
            len(found) == 1 or not (found or parameter.requires_grad),
            f"recipe {recipe.name}: parameter_groups has {name} in {' and '.join(found) or 'none'} of its groups; "
            "each parameter belongs in one",
        )
    names = [group.name for group in groups]
    require(len(set(names)) == len(names), f"recipe {recipe.name}: two of the groups {', '.join(names)} share a name")
    require(
        any(group.from_step == 0 and len(group.parameters) for group in groups),
        f"recipe {recipe.name}: no parameter is learned in the first step",
    )
