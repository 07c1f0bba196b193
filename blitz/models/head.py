"""The part of a model that gives its outputs."""

from torch import nn


def head_of(model: nn.Module) -> list[str]:
    """Names of the parameters of the last module that has any: the head of all of torchvision's classifiers."""
    prefix, head = [
        (name, module)
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ][-1]
    return [f"{prefix}.{name}" if prefix else name for name, _ in head.named_parameters(recurse=False)]
