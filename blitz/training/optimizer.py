"""torch's own optimizers, and a learning-rate schedule that is a function of the step."""

import math

import torch
from torch import Tensor, nn, optim

from blitz.recipe import Optim

State = dict[str, Tensor]


def build_optimizer(settings: Optim, model: nn.Module) -> optim.Optimizer:
    """torch's optimizer, in its fused form where it has one: one call a step, not a loop over the parameters."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    lr, decay, momentum = settings.lr, settings.weight_decay, momentum_of(settings)
    match settings.name:
        case "sgd" | "momentum":
            sgd = optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay, fused=True)
            if momentum:
                # What the first gradient would make of nothing. The fused update takes no mixture of parameters that
                # have had a gradient and of some that have one for the first time.
                for parameter in parameters:
                    sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return sgd
        case "rmsprop":
            return optim.RMSprop(parameters, lr=lr, alpha=settings.alpha, momentum=momentum, weight_decay=decay)
        case "adam":
            return optim.Adam(parameters, lr=lr, betas=settings.betas, weight_decay=decay, fused=True)
        case "adamw":
            return optim.AdamW(parameters, lr=lr, betas=settings.betas, weight_decay=decay, fused=True)


def momentum_of(settings: Optim) -> float:
    """Of sgd, momentum and rmsprop: what was set, or by default 0.9 for `momentum` and 0 for the others."""
    if settings.momentum is None:
        return 0.9 if settings.name == "momentum" else 0.0
    return settings.momentum


def learning_rate(settings: Optim, step: int, total_steps: int) -> float:
    """The learning rate of step `step`, counted from 0.

    Linear warm-up, then constant or half a cosine to 0 (Loshchilov & Hutter 2017, without restarts).
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    progress = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_state(optimizer: optim.Optimizer, model: nn.Module) -> State:
    """The optimizer's tensors by name, as `exp_avg/<parameter>`; its settings are the recipe's and not among them."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{key}/{names[parameter]}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(optimizer: optim.Optimizer, model: nn.Module, stored: State) -> None:
    """Put back what `optimizer_state` gave."""
    groups = optimizer.param_groups
    numbers = {parameter: n for n, parameter in enumerate(p for group in groups for p in group["params"])}
    parameters = dict(model.named_parameters())
    state: dict[int, State] = {}
    for name, value in stored.items():
        key, _, parameter_name = name.partition("/")
        parameter = parameters[parameter_name]
        if value.shape == parameter.shape:
            # In the parameter's memory format: fused updates go through both in the order of their memory.
            value = torch.empty_like(parameter, device="cpu").copy_(value)
        state.setdefault(numbers[parameter], {})[key] = value
    # torch knows which of its tensors belongs on which device.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
