"""Parameter groups by rule, and optimizers given by their class."""

import inspect
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import nn, optim

from blitz.errors import UserError, first_line, require
from blitz.models.head import head_of
from blitz.optim import Group, Optim


def torch_groups(settings: Optim, groups: Sequence[Group], model: nn.Module) -> list[dict[str, Any]]:
    """torch's parameter groups, split by the rules for weight decay and for layers, the last layers first."""
    plain = _not_decayed(model) if settings.weight_decay and not settings.decay_all else set()
    factors = _layer_factors(settings.layer_decay, model) if settings.layer_decay is not None else {}
    found = []
    for group in groups:
        parts: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for parameter in group.parameters:
            parts.setdefault((factors.get(parameter, 1.0), parameter in plain), []).append(parameter)
        for (factor, is_plain), parameters in sorted(parts.items(), key=lambda part: (-part[0][0], part[0][1])):
            decay = {"weight_decay": 0.0} if is_plain else {}
            found.append({"params": parameters, "name": group.name, "lr_factor": group.lr_factor * factor, **decay})
    return found


def _not_decayed(model: nn.Module) -> set[nn.Parameter]:
    """Biases and the weights of norms, which are vectors, and embeddings."""
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    tables = {parameter for one in embeddings for parameter in one.parameters()}
    return tables | {parameter for parameter in model.parameters() if parameter.dim() < 2}


def _layer_factors(decay: float, model: nn.Module) -> dict[nn.Parameter, float]:
    """The factor of each parameter: 1 in the last layer, and in each layer before it `decay` times the next one's.

    A layer is what the parts of the parameters' names up to the first number name, as `layer1.0` or `features.3`; or
    without a number the first part, as `fc`.
    """
    layers = {parameter: _layer_of(name) for name, parameter in model.named_parameters()}
    order = list(dict.fromkeys(layers.values()))
    return {parameter: decay ** (len(order) - 1 - order.index(layer)) for parameter, layer in layers.items()}


def _layer_of(name: str) -> str:
    found = re.match(r"(?:.*?\.)?\d+(?=\.)", name)
    return found[0] if found else name.partition(".")[0]


def hidden_matrices(model: nn.Module) -> set[nn.Parameter]:
    """The matrices that Muon optimizes: those of all layers but embeddings and the head."""
    head = {*head_of(model)}
    others = {id(parameter) for parameter in _not_decayed(model)}
    return {
        parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and name not in head and id(parameter) not in others
    }


def custom_optimizer(settings: Optim, groups: list[dict[str, Any]]) -> optim.Optimizer:
    """The optimizer that `settings.custom` names.

    Raises:
        UserError: if there is no such class, or it does not take these arguments, or needs a closure.
    """
    what = f"--optim.custom {settings.custom}"
    module, _, name = (settings.custom or "").partition(":")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{what}: {first_line(error)}") from error
    is_one = isinstance(cls, type) and issubclass(cls, optim.Optimizer)
    require(is_one, f"{what} is no torch.optim.Optimizer")
    closure = inspect.signature(cls.step).parameters.get("closure")
    require(closure is None or closure.default is None, f"{what} needs to compute the loss several times a step")
    arguments = dict(settings.arguments)
    if settings.weight_decay and "weight_decay" not in arguments:
        arguments["weight_decay"] = settings.weight_decay
    try:
        made: optim.Optimizer = cls(groups, lr=settings.lr, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {first_line(error)}; --optim.arguments are {arguments or 'none'}") from error
    return made
