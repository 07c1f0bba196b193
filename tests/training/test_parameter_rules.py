"""Optimizers by name, rules for weight decay and for layers, by the steps that they take."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blitz.errors import UserError
from blitz.launch.local.in_process import world_here
from blitz.launch.scale import Scale
from blitz.optim import Group, Optim
from blitz.recipe import Recipe
from blitz.training.optimizer import Optimizers
from blitz.training.packed import why_not_packable
from tests.running import losses, same_bits, train, weights
from tests.training.test_loop import SMALL, Noisy, killed_after


class Lion(torch.optim.Optimizer):
    """Evolved sign momentum (Chen et al. 2023), which counts its steps in a number."""

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "beta": beta})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state |= {"momentum": torch.zeros_like(parameter), "count": 0}
                state["count"] += 1
                state["momentum"].lerp_(parameter.grad, 1 - group["beta"])
                parameter.sub_(state["momentum"].sign(), alpha=group["lr"] / state["count"])


class Net(nn.Module):
    """Parameters of every kind, whose sum is the loss: the gradient of each of them is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 2)
        self.blocks = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
        self.head = nn.Linear(2, 2)


@dataclass(frozen=True)
class WithNet(Noisy):
    """A recipe whose model is `Net`."""

    def build_model(self) -> nn.Module:
        return Net()


def step_of(optim: Optim, *, gradient: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All parameters before and after a step."""
    recipe: Recipe = WithNet(optim=optim)
    model = recipe.build_model()
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    optimizers = Optimizers(recipe, model, recipe.plan(50, 50))
    optimizers.freeze(0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizers.clip(look=False)
    optimizers.step(0)
    return before, {name: one.detach() for name, one in model.named_parameters()}


def test_without_decay_all_only_matrices_of_layers_decay() -> None:
    before, after = step_of(Optim("sgd", lr=0.5, weight_decay=0.5, decay_all=False), gradient=0.0)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"blocks.0.weight", "blocks.2.weight", "head.weight"}
    before, after = step_of(Optim("sgd", lr=0.5, weight_decay=0.5), gradient=0.0)
    # Biases of a layer norm are 0 at first.
    assert {name for name in before if torch.equal(before[name], after[name])} == {"blocks.1.bias"}


def test_layer_decay_scales_each_layers_rate_by_its_distance_from_the_last() -> None:
    before, after = step_of(Optim("sgd", lr=1.0, layer_decay=0.5), gradient=1.0)
    moves = {name: (before[name] - after[name]).mean().item() for name in before}
    expected = {"embedding": 1 / 16, "blocks.0": 1 / 8, "blocks.1": 1 / 4, "blocks.2": 1 / 2, "head": 1.0}
    assert moves == pytest.approx({name: expected[name.rpartition(".")[0]] for name in before}, rel=1e-5)


def test_muon_has_the_matrices_before_the_head_and_adamw_the_rest() -> None:
    recipe = WithNet(optim=Optim("muon", lr=0.01))
    model = recipe.build_model()
    optimizers = Optimizers(recipe, model, recipe.plan(50, 50))
    each = [{p for group in one.param_groups for p in group["params"]} for _, one in optimizers._each]
    matrices = {model.get_parameter("blocks.0.weight"), model.get_parameter("blocks.2.weight")}
    assert each == [matrices, {*model.parameters()} - matrices]
    before, after = step_of(recipe.optim, gradient=1.0)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(UserError, match=r"the model has no matrices before its head"):
        Optimizers(Flat(optim=recipe.optim), Flat().build_model(), recipe.plan(50, 50))


@dataclass(frozen=True)
class Deep(Noisy):
    """A recipe whose model has a matrix before its head."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


@dataclass(frozen=True)
class Flat(Noisy):
    """A recipe whose model is its head."""

    def build_model(self) -> nn.Module:
        return nn.Linear(4, 2)


def test_two_optimizers_of_one_setting_clip_to_one_norm() -> None:
    recipe = WithNet(optim=Optim("muon", lr=0.01, grad_clip_norm=1.0))
    model = recipe.build_model()
    optimizers = Optimizers(recipe, model, recipe.plan(50, 50))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.clip(look=False)
    assert nn.utils.get_total_norm([one.grad for one in model.parameters() if one.grad is not None]) == pytest.approx(1)


CUSTOM = [
    Optim(custom="torch.optim:NAdam", arguments=(("momentum_decay", 0.01),), lr=0.003),
    Optim(custom="tests.training.test_parameter_rules:Lion", arguments=(("beta", 0.8),), lr=0.001),
    Optim("muon", lr=0.003, weight_decay=0.01),
    Optim("adamw", lr=0.003, weight_decay=0.1, decay_all=False, layer_decay=0.7),
]


@pytest.mark.parametrize("optim", CUSTOM, ids=["nadam", "lion", "muon", "rules"])
def test_each_goes_on_from_a_checkpoint_to_the_bits_of_a_run_that_was_never_stopped(
    tmp_path: Path, optim: Optim
) -> None:
    recipe = Deep(optim=optim)
    whole = train(recipe, tmp_path / "whole")
    killed_after(recipe, tmp_path / "parts", 3)
    parts = train(recipe, tmp_path / "parts")
    assert same_bits(weights(parts), weights(whole))
    assert losses(parts) == losses(whole)
    assert losses(whole)[-1] < losses(whole)[0]


@pytest.mark.parametrize("optim", CUSTOM, ids=["nadam", "lion", "muon", "rules"])
def test_a_sweep_names_what_it_cannot_pack(optim: Optim) -> None:
    recipe = replace(SMALL, optim=optim)
    reason = why_not_packable(recipe, recipe.dataset("train"), world=world_here(Scale(use_gpu="no")))
    named = optim.custom or ("muon" if optim.name == "muon" else "its optimizer has groups of parameters by rule")
    assert reason is not None
    assert reason.startswith(named)


@pytest.mark.parametrize(
    ("custom", "arguments", "says"),
    [
        ("torch.optim:Adamw", (), "has no attribute 'Adamw'"),
        ("no_such_package:Adam", (), "No module named 'no_such_package'"),
        ("torch.nn:Linear", (), "is no torch.optim.Optimizer"),
        ("torch.optim:LBFGS", (), "needs to compute the loss several times a step"),
        ("torch.optim:Adam", (("beta", 1.0),), r"unexpected keyword argument 'beta'; --optim.arguments are"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused_in_one_line(custom: str, arguments: Any, says: str) -> None:
    recipe = WithNet(optim=Optim(custom=custom, arguments=arguments))
    with pytest.raises(UserError, match=says) as refused:
        Optimizers(recipe, recipe.build_model(), recipe.plan(50, 50))
    assert "\n" not in str(refused.value)


def test_groups_keep_their_names_and_the_rate_of_their_last_layer() -> None:
    @dataclass(frozen=True)
    class Two(WithNet):
        def parameter_groups(self, model: nn.Module, steps_per_epoch: int) -> list[Group]:
            head = [*model.get_submodule("head").parameters()]
            rest = [one for one in model.parameters() if not any(one is other for other in head)]
            return [Group("head", head), Group("rest", rest, lr_factor=0.1)]

    recipe = Two(optim=Optim("sgd", lr=1.0, layer_decay=0.5))
    optimizers = Optimizers(recipe, recipe.build_model(), recipe.plan(50, 50))
    optimizers.freeze(0)
    optimizers.step(0)
    assert optimizers.rates() == pytest.approx({"lr": 1.0, "lr/head": 1.0, "lr/rest": 0.05})
