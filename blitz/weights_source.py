"""Where the initial weights of a run come from."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from blitz.fields import may_change


@dataclass(frozen=True)
class WeightsSource:
    """The source of a run's initial weights, which are kept in its initial.safetensors."""

    step: int | None
    """The checkpoint's step, if the source is a run."""
    sha256: str
    """The hash of the weights, hexadecimal."""
    source: str = may_change("")
    """A run, a file, or the name that the recipe gives."""


@dataclass(frozen=True)
class Pretrained:
    """Weights that a recipe provides."""

    source: str
    tensors: Mapping[str, Tensor]
