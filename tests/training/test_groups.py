"""Parameter groups: rates of their own, frozen ones, ones that are learned from some step on, several optimizers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from blitz.data.plan import Shares
from blitz.errors import UserError
from blitz.optim import Group, Optim
from blitz.recipe import Batch, Recipe, may_change
from blitz.training.checkpoint import Checkpoint
from blitz.training.loop import Checkpoints
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, result, same_bits, train, weights
from tests.training.test_loop import Noisy, killed_after, stop_after
from tests.two_networks import TwoNetworks, plain_loop


@dataclass(frozen=True)
class Grouped(Noisy):
    """A net with dropout and batch norm whose last layer learns at once, and what is before it at another rate."""

    evaluate_every_steps: int | None = 4
    optim: Optim = Optim(name="momentum", lr=0.1, weight_decay=0.1)
    body_lr_factor: float = may_change(0.1)
    body_from_step: int | None = may_change(8)

    def parameter_groups(self, model: nn.Module, steps_per_epoch: int) -> Sequence[Group]:
        assert isinstance(model, nn.Sequential)
        head, body = [*model[-1].parameters()], [*model[:-1].parameters()]
        return [
            Group("head", head),
            Group("body", body, lr_factor=self.body_lr_factor, from_step=self.body_from_step),
        ]


EVERY_STEP = Checkpoints(every_steps=1, keep=100)


def body(of: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in of.items() if not name.startswith("4.")}


def initial(recipe: Recipe) -> dict[str, Tensor]:
    torch.manual_seed(recipe.seed)
    return recipe.build_model().state_dict()


def test_what_is_frozen_stays_as_it_is_to_the_bit_with_its_statistics_until_its_step(tmp_path: Path) -> None:
    run = train(Grouped(), tmp_path, checkpoints=EVERY_STEP)
    before, at, after = weights(run, 1), weights(run, 8), weights(run, 9)
    assert same_bits(body(before), body(initial(Grouped())))
    assert same_bits(body(at), body(before))
    assert not torch.equal(at["4.weight"], before["4.weight"])
    assert all(not torch.equal(value, at[name]) for name, value in body(after).items())
    assert after["1.num_batches_tracked"] == 1
    # Momentum has gathered nothing for it before.
    momentum = Checkpoint.load(run, 8).optimizer
    assert not any(value.any() for name, value in momentum.items() if not name.startswith("momentum_buffer/4."))
    rates = [[line["lr/head"], line["lr/body"]] for line in run.metrics() if "lr" in line]
    assert rates == [[0.1, 0.0]] * 8 + [[0.1, pytest.approx(0.01)]] * (len(rates) - 8)


def test_what_is_never_learned_is_as_it_was_at_the_end(tmp_path: Path) -> None:
    run = train(Grouped(body_from_step=None), tmp_path)
    assert same_bits(body(weights(run)), body(initial(Grouped())))


@pytest.mark.parametrize("stop", [5, 8, 10])
def test_a_run_that_is_stopped_before_at_or_after_the_step_of_unfreezing_resumes_to_the_same_bits(
    tmp_path: Path, stop: int
) -> None:
    whole = train(Grouped(), tmp_path / "whole")
    killed_after(Grouped(), tmp_path / "parts", stop)
    parts = train(Grouped(), tmp_path / "parts")
    assert same_bits(weights(parts), weights(whole))
    assert losses(parts) == losses(whole)


def test_groups_take_the_steps_that_torch_takes_with_a_rate_for_each(tmp_path: Path) -> None:
    plain = replace(Grouped(), optim=replace(Grouped().optim, schedule="cosine"))
    alike = train(replace(plain, body_lr_factor=1.0, body_from_step=0), tmp_path / "alike")

    class OneGroup(Grouped):
        def parameter_groups(self, model: nn.Module, steps_per_epoch: int) -> Sequence[Group]:
            return Recipe.parameter_groups(self, model, steps_per_epoch)

    one = train(OneGroup(optim=plain.optim), tmp_path / "one")
    assert same_bits(weights(alike), weights(one))
    # A step of momentum SGD from rest is as long as its rate.
    full, tenth = (
        train(stop_after(in_float64(Grouped(body_lr_factor=factor, body_from_step=0)), 1), tmp_path / str(factor))
        for factor in (1.0, 0.1)
    )
    start = initial(in_float64(Grouped()))
    for name, _ in Grouped().build_model().named_parameters():
        step, other = (weights(run)[name] - start[name] for run in (full, tenth))
        torch.testing.assert_close(other, step * (1.0 if name.startswith("4.") else 0.1), rtol=TOLERANCE, atol=1e-12)


def test_two_networks_take_the_steps_of_a_plain_loop_with_two_optimizers(tmp_path: Path) -> None:
    recipe = in_float64(TwoNetworks(epochs=2))
    dataset = recipe.dataset("train")
    shares = Shares.of(recipe.plan(len(dataset), 0), world_size=1, row_bytes=64)
    batches = []
    for chunk in shares.chunks(0):
        if chunk.split == "train":
            rows, row_weights = shares.rows_of(chunk, 0)
            for step in range(chunk.stop - chunk.start):
                part = slice(step * shares.share, (step + 1) * shares.share)
                columns = dataset.__getitems__(rows[part][row_weights[part] > 0])
                batches.append({name: torch.from_numpy(column).double() for name, column in columns.items()})
    torch.manual_seed(recipe.seed)
    model = recipe.build_model()
    expected = plain_loop(recipe, batches, model)
    run = train(recipe, tmp_path)
    assert losses(run) == pytest.approx(expected, rel=TOLERANCE)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights(run)[name], value, rtol=TOLERANCE, atol=TOLERANCE)


@dataclass(frozen=True)
class Wrong(Noisy):
    """Groups with a mistake."""

    mistake: str = ""

    def parameter_groups(self, model: nn.Module, steps_per_epoch: int) -> Sequence[Group]:
        every = [*model.parameters()]
        return {
            "left out": [Group("one", every[:-1])],
            "twice": [Group("one", every), Group("two", every[:1])],
            "names": [Group("one", every[:1]), Group("one", every[1:])],
            "late": [Group("one", every, from_step=1)],
        }[self.mistake]


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("left out", "has 4.bias in none of its groups"),
        ("twice", "has 0.weight in one and two of its groups"),
        ("names", "two of the groups one, one share a name"),
        ("late", "no parameter is learned in the first step"),
    ],
)
def test_groups_with_a_mistake_are_refused(mistake: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        train(Wrong(mistake=mistake), tmp_path)


def test_a_gradient_that_is_not_finite_leaves_out_the_step_of_both_networks(tmp_path: Path) -> None:
    class Breaking(TwoNetworks):
        def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
            losses = super().loss(outputs, batch)
            # Only the critic's gradient breaks, and only in the batch with this row.
            breaks = (batch["real"] == row).all(1).any()
            return losses + torch.where(breaks, torch.nan, 0.0) * outputs["real"]

    recipe = Breaking(epochs=2, on_nan="skip")
    row = torch.from_numpy(recipe.dataset("train").columns["real"][7])
    run = train(recipe, tmp_path, checkpoints=EVERY_STEP)
    states = [initial(recipe), *(weights(run, step) for step in range(1, result(run)["steps"] + 1))]
    assert [same_bits(*two) for two in pairwise(states)].count(True) == recipe.epochs
    assert json.dumps(losses(run)).count("NaN") == 0
