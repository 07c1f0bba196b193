"""Models that are built one tensor at a time have the weights that their constructor gives."""

import weakref
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from blitz.training.deferred import CannotDefer, Recording, named_tensors
from tests.running import same_bits


class Initialised(nn.Module):
    """Weights that are drawn again, views, shared ones, a constant, one in float64, and a table of sines."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(5, 5) for _ in range(3)]
        self.layers = nn.ModuleList(layers)
        self.embedding = nn.Embedding(7, 5, padding_idx=0)
        self.norm, self.attention = nn.BatchNorm1d(5), nn.MultiheadAttention(5, 1)
        self.apply(self._again)
        nn.init.orthogonal_(layers[0].weight)
        nn.init.trunc_normal_(layers[1].weight, std=0.1)
        layers[2].weight = layers[0].weight
        self.start = nn.Parameter(torch.tensor([0.5]))
        self.wide = nn.Linear(2, 2).double()
        table = torch.zeros(4, 6)
        table[:, 0::2] = torch.arange(4.0)[:, None].sin()
        self.register_buffer("table", table, persistent=False)

    def _again(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)


def built(recording: Recording, model: nn.Module) -> dict[str, Tensor]:
    tensors = named_tensors(model)
    deferred = {name: tensor for name, tensor in tensors.items() if tensor.is_meta}
    return tensors | dict(recording.values(deferred))


@pytest.mark.parametrize("kind", [Initialised, torchvision.models.squeezenet1_1])
def test_the_weights_are_those_of_the_constructor_to_the_bit(kind: type[nn.Module]) -> None:
    torch.manual_seed(3)
    expected = named_tensors(kind())
    torch.manual_seed(3)
    recording = Recording()
    with recording.here():
        model = kind()
    assert same_bits(built(recording, model), expected)


def test_no_more_is_held_than_one_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(64, 64, bias=False) for _ in range(20)]
            self.layers = nn.ModuleList(layers)
            for layer in layers:
                nn.init.normal_(layer.weight)

    recording, one = Recording(), 64 * 64 * 4
    with recording.here():
        tensors = named_tensors(Deep())
    made: list[weakref.ref[torch.UntypedStorage]] = []

    class Noted(torch.UntypedStorage):
        def __init__(self, *args: Any) -> None:
            made.append(weakref.ref(self))

    monkeypatch.setattr(torch, "UntypedStorage", Noted)
    held = [sum(storage.nbytes() for ref in made if (storage := ref())) for _ in recording.values(tensors)]
    assert held == [one] * 20


def test_a_constructor_that_needs_values_is_refused() -> None:
    class Needs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.largest = nn.Linear(3, 3).weight.max().item()

    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.order = torch.randperm(4)

    for kind in (Needs, Draws):
        with pytest.raises(CannotDefer), Recording().here():
            kind()
