"""Image classifiers of timm, as `timm:resnet18` or with the tag of its weights, `timm:resnet18.a1_in1k`."""

import difflib
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor, nn

from blitz.errors import UserError, first_line, require
from blitz.extras import extra

PREFIX = "timm:"


@dataclass(frozen=True)
class Inputs:
    """The images that a model's weights are made for."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_fixed: bool
    """Whether the model takes images of the size that it is made for alone."""


def timm_model(name: str, *, outputs: int, size: int) -> nn.Module:
    """A classifier with new weights, for images of shape (batch, 3, size, size).

    Raises:
        UserError: if timm has no model or tag of that name.
    """
    sized = {"img_size": size} if inputs_of(name).is_fixed else {}
    model: nn.Module = _timm(name).create_model(_own(name), pretrained=False, num_classes=outputs, **sized)
    return model


@cache
def inputs_of(name: str) -> Inputs:
    """The images that a model takes, as timm's configuration of its weights says.

    Raises:
        UserError: if timm has no model or tag of that name.
    """
    timm, own = _timm(name), _own(name)
    architecture, _, tag = own.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.4)
        names = ", ".join(PREFIX + one for one in close or ["resnet18", "convnextv2_atto"])
        raise UserError(f"--model.name: timm has no model {architecture!r}; it has {names} and others")
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")]
    has = f"it has {', '.join(tags)}" if tags else "it has none"
    require(not tag or tag in tags, f"--model.name: timm has no weights {tag!r} of {architecture}; {has}")
    config = timm.get_pretrained_cfg(own)
    return Inputs(config.input_size[-1], config.mean, config.std, config.fixed_input_size)


def hub_weights(name: str, which: str) -> tuple[str, dict[str, Tensor]]:
    """The name and the tensors of pretrained weights, `DEFAULT` those that the name stands for, from timm's hub.

    Raises:
        UserError: if there are none of that name, or they cannot be downloaded.
    """
    own = _own(name) if which == "DEFAULT" else f"{_own(name).partition('.')[0]}.{which}"
    inputs_of(PREFIX + own)
    try:
        model = _timm(name).create_model(own, pretrained=True)
    except Exception as error:
        # timm downloads by one of three libraries, each with errors of its own.
        raise UserError(
            f"--weights: timm's {own} cannot be downloaded ({first_line(error)}); fetch its model.safetensors where "
            "that is possible and give the file with --init-from FILE; or start with new weights: --weights None"
        ) from error
    return f"timm's {own}", dict(model.state_dict())


def _own(name: str) -> str:
    return name.removeprefix(PREFIX)


def _timm(name: str) -> Any:
    with extra("timm", what=f"--model.name {name}"):
        import timm
    return timm
