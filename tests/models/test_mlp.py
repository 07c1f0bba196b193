from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blitz.models.mlp import MLP, Activation
from blitz.models.tabular_mlp import TabularMLP

EXPECTED: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
}


@pytest.mark.parametrize("activation", get_args(Activation))
def test_an_activation_stands_between_layers_and_not_at_the_end(activation: Activation) -> None:
    model, numbers = MLP((3, 5, 2), activation=activation), torch.randn(7, 3)
    first, _, last = model.layers
    torch.testing.assert_close(model(numbers), last(EXPECTED[activation](first(numbers))))


@pytest.mark.parametrize("activation", get_args(Activation))
def test_an_activation_follows_each_hidden_layer_of_a_table(activation: Activation) -> None:
    model = TabularMLP(numbers=3, codes=[], hidden=[5], dropout=0, outputs=2, activation=activation).eval()
    first, last = (layer for layer in model.layers if isinstance(layer, nn.Linear))
    numbers = torch.randn(7, 3)
    expected = last(EXPECTED[activation](first(numbers)))
    torch.testing.assert_close(model(numbers, torch.empty(7, 0, dtype=torch.long)), expected)
