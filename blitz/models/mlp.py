"""A multilayer perceptron over numbers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "sigmoid", "tanh", "softplus"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
}
"""The modules by the names that flags have for them."""


class MLP(nn.Module):
    """Linear layers of the given widths with an activation between them: (batch, widths[0]) → (batch, widths[-1])."""

    def __init__(self, widths: Sequence[int], *, activation: Activation = "relu") -> None:
        super().__init__()
        layers = [(nn.Linear(before, after), ACTIVATIONS[activation]()) for before, after in pairwise(widths)]
        self.layers = nn.Sequential(*[module for layer in layers for module in layer][:-1])

    def forward(self, numbers: Tensor) -> Tensor:
        """Outputs of shape (batch, widths[-1])."""
        outputs: Tensor = self.layers(numbers)
        return outputs
