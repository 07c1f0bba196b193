"""RandAugment (Cubuk et al. 2019) and TrivialAugment Wide (Müller & Hutter 2021), by random numbers that are passed.

torchvision's operations in torchvision's strengths; its own classes draw from torch's global generator, and change all
images of a batch alike.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

Policy = Literal["randaugment", "trivialaugment"]

STRENGTHS = 31
"""Strengths of an operation, from 0, which changes little, to the strongest."""
DRAWS = 3
"""Random numbers for one operation on an image."""

_IDENTITY = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}

Operation = Callable[[Tensor, float], Tensor]


@cache
def operations() -> dict[str, tuple[bool, Operation]]:
    """By name: whether a magnitude may be negative, and the operation on images of one magnitude."""
    # Imported here, because it takes seconds, which recipes of tables need not wait for.
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as f

    bilinear = InterpolationMode.BILINEAR

    def affine(images: Tensor, **changes: Any) -> Tensor:
        moved: Tensor = f.affine(images, **{**_IDENTITY, **changes}, interpolation=bilinear)
        return moved

    return {
        "identity": (False, lambda images, _: images),
        "shear_x": (True, lambda images, m: affine(images, shear=[_degrees(m), 0.0], center=[0, 0])),
        "shear_y": (True, lambda images, m: affine(images, shear=[0.0, _degrees(m)], center=[0, 0])),
        "translate_x": (True, lambda images, m: affine(images, translate=[int(m), 0])),
        "translate_y": (True, lambda images, m: affine(images, translate=[0, int(m)])),
        "rotate": (True, lambda images, m: f.rotate(images, m, interpolation=bilinear)),
        "brightness": (True, lambda images, m: f.adjust_brightness(images, 1 + m)),
        "saturation": (True, lambda images, m: f.adjust_saturation(images, 1 + m)),
        "contrast": (True, lambda images, m: f.adjust_contrast(images, 1 + m)),
        "sharpness": (True, lambda images, m: f.adjust_sharpness(images, 1 + m)),
        "posterize": (False, lambda images, m: f.posterize(images, 8 - round(m))),
        "solarize": (False, lambda images, m: f.solarize(images, 255 * (1 - m))),
        "autocontrast": (False, lambda images, _: f.autocontrast(images)),
        "equalize": (False, lambda images, _: f.equalize(images)),
    }


def _degrees(share: float) -> float:
    return math.degrees(math.atan(share))


def _most(name: str, policy: Policy, side: int) -> float:
    """The magnitude of the strongest operation."""
    random = policy == "randaugment"
    match name:
        case "shear_x" | "shear_y":
            return 0.3 if random else 0.99
        case "translate_x" | "translate_y":
            return 150 / 331 * side if random else 32.0
        case "rotate":
            return 30.0 if random else 135.0
        case "posterize":
            return 4.0 if random else 6.0
        case "solarize":
            return 1.0
        case _:
            return 0.9 if random else 0.99


def operated(images: Tensor, name: str, strength: int, policy: Policy) -> Tensor:
    """Images, uint8 of shape (batch, channels, side, side), after one operation; a negative strength is its reverse."""
    _, operation = operations()[name]
    return operation(images, _most(name, policy, images.shape[-1]) * strength / (STRENGTHS - 1))


def augmented(images: Tensor, u: Tensor, policy: Policy, strength: int) -> Tensor:
    """Images, uint8 of shape (batch, channels, side, side), each after operations of its own.

    `u`, of shape (batch, operations · DRAWS), decides which they are, and for TrivialAugment how strong; those of
    RandAugment are of one `strength`.
    """
    names = [*operations()]
    signed = torch.tensor([is_signed for is_signed, _ in operations().values()], device=u.device)
    images = images.clone()
    for which, strong, sign in (one.unbind(1) for one in u.split(DRAWS, dim=1)):
        chosen = (which * len(names)).long()
        strengths = (strong * STRENGTHS).long() if policy == "trivialaugment" else torch.full_like(chosen, strength)
        strengths = torch.where(signed[chosen] & (sign < 0.5), -strengths, strengths)
        pairs = torch.stack([chosen, strengths], dim=1)
        # An operation takes one magnitude for all images that it is given: those that drew the same go together.
        kinds, kind_of = pairs.unique(dim=0, return_inverse=True)
        for kind, (operation, each) in enumerate(kinds.tolist()):
            rows = kind_of == kind
            images[rows] = operated(images[rows], names[operation], each, policy)
    return images
