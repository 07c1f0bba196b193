import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from blitz.data.plan import Block, Shares, fetch
from blitz.errors import RunFailed, UserError
from blitz.optim import Optim
from blitz.recipe import Batch, Recipe
from blitz.recipes.digits import Digits
from blitz.recipes.parabola import Parabola
from blitz.run_files.directory import RunDirectory
from blitz.training.packed import PackJob, Rungs, train_pack
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, same_bits, train, weights
from tests.training.packed.packs import HERE, Heard, train_packed

SHORT = Parabola(epochs=3, log_every_steps=1)
EXACT = in_float64(SHORT)
GOOD = [replace(EXACT, optim=optim) for optim in (Optim(lr=0.01), Optim("sgd", lr=0.1), Optim("rmsprop", lr=0.01))]
DIVERGES = replace(EXACT, optim=Optim("momentum", lr=1e40))


def test_lanes_that_diverge_fail_at_their_step_and_disturb_no_other(tmp_path: Path) -> None:
    alone = train_packed(GOOD)
    heard = train_packed([DIVERGES, *GOOD, DIVERGES])
    for lane in (0, 4):
        end = heard.ends[lane]
        assert (end.state, end.last, end.best) == ("failed", None, None)
        assert end.reason in {f"the training loss is {loss} at step {end.step}" for loss in ("nan", "inf")}
        assert all(math.isfinite(loss) for loss in heard.losses(lane))
        assert len(heard.losses(lane)) == end.step - 1 < 30
    for lane in range(3):
        assert heard.ends[lane + 1].state == "finished"
        assert heard.losses(lane + 1) == pytest.approx(alone.losses(lane), rel=TOLERANCE)
    with pytest.raises(RunFailed, match=f"at step {heard.ends[0].step}"):
        train(DIVERGES, tmp_path)


def test_a_pack_ends_with_its_last_lane() -> None:
    asked: list[int] = []
    dataset = DIVERGES.dataset("train")
    plan = DIVERGES.plan(len(dataset), 0)
    shares = Shares(plan, world_size=1, block_batches=1)

    def blocks() -> Iterator[Block]:
        for chunk in shares.chunks(0):
            asked.append(chunk.start)
            yield fetch(dataset, shares, chunk, rank=0)

    heard = Heard()
    train_pack(PackJob((DIVERGES, DIVERGES), plan), blocks(), world=HERE, listener=heard)
    assert {end.state for end in heard.ends.values()} == {"failed"}
    assert max(asked) + 1 == heard.ends[0].step


@dataclass(frozen=True)
class Cliff(Parabola):
    """A loss whose gradient is not finite where the outputs are 0, as they are with an `init_seed` of 7."""

    def build_model(self) -> nn.Module:
        model = nn.Linear(1, 1, bias=False)
        if torch.initial_seed() == 7:
            nn.init.zeros_(model.weight)
        return model

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return outputs.abs().sqrt().mean(1)


def test_a_gradient_that_is_not_finite_fails_a_lane_and_so_do_weights() -> None:
    heard = train_packed([Cliff(init_seed=7), Cliff(init_seed=1)])
    assert heard.ends[0].reason == "the gradient is not finite at step 1"
    assert heard.ends[1].state == "finished"
    last_step = replace(SHORT, max_steps=1)
    far = replace(last_step, optim=Optim("sgd", lr=1e39))
    assert train_packed([far, last_step]).ends[0].reason == "the weights are not finite after step 1"


def test_a_lane_that_failed_after_an_evaluation_keeps_its_best_checkpoint() -> None:
    rises = Optim("momentum", lr=100.0, warmup_steps=3000)
    end = train_packed([replace(SHORT, optim=rises, evaluate_every_steps=2, epochs=10)]).ends[0]
    assert end.state == "failed"
    assert end.best is not None
    assert end.best.step % 2 == 0
    assert end.best.step < end.step


def test_at_a_rung_the_best_continue_and_a_metric_that_is_no_number_is_the_worst() -> None:
    least = Rungs("val/loss", higher_is_better=False, grace_steps=1)
    most = replace(least, higher_is_better=True, reduction_factor=2)
    values = [0.5, math.nan, 0.1, 0.9, 0.3]
    assert least.kept(values) == [2, 4]
    assert most.kept(values) == [0, 3, 4]
    assert most.kept([math.nan]) == [0]


def test_lanes_that_are_stopped_at_a_rung_leave_the_stack_and_can_resume_alone(tmp_path: Path) -> None:
    rates = (0.0001, 0.003, 0.02, 0.0003, 0.01, 0.001, 0.002, 0.0002, 0.005)
    recipes = [replace(EXACT, optim=Optim("adamw", lr=lr, schedule="cosine", weight_decay=0.1)) for lr in rates]
    whole = train_packed(recipes)
    heard = train_packed(recipes, Rungs("val/rmse", higher_is_better=False, grace_steps=20))
    ends = heard.ends.values()
    # The first rung is at the evaluation after 32 steps, the next at that after 64.
    assert sorted(end.step for end in ends) == [32] * 6 + [64] * 2 + [96]
    assert heard.lane_steps == 32 * 9 + 32 * 3 + 32 * 1
    finished = next(lane for lane, end in heard.ends.items() if end.state == "finished")
    assert heard.losses(finished) == pytest.approx(whole.losses(finished), rel=TOLERANCE)

    stopped = next(lane for lane, end in heard.ends.items() if end.step == 64)
    end = heard.ends[stopped]
    assert end.reason is not None
    assert end.reason.startswith("val/rmse 0.")
    assert end.reason.endswith(" is not among the best 1 of 3 at step 64")
    assert end.last is not None
    run = RunDirectory.of(str(tmp_path))
    run.probe()
    end.last.save(run)
    goes_on = losses(train(recipes[stopped], tmp_path))
    assert goes_on == pytest.approx(whole.losses(stopped)[64:], rel=TOLERANCE)


def test_equal_packs_give_the_same_bits() -> None:
    one, other = train_packed(GOOD), train_packed(GOOD)
    for lane in range(3):
        first, second = one.ends[lane].last, other.ends[lane].last
        assert first is not None
        assert second is not None
        assert same_bits(first.weights, second.weights)


def test_recipes_that_differ_in_more_than_a_lane_may_are_refused() -> None:
    with pytest.raises(ValueError, match="may differ in `optim` and `init_seed` alone"):
        train_packed([SHORT, replace(SHORT, hidden=(10,))])


def test_a_metric_that_is_missing_is_named_with_those_that_exist() -> None:
    with pytest.raises(UserError, match="no metric 'val/accuracy'; there are val/loss, val/mae, val/rmse, val/r2"):
        train_packed(GOOD, Rungs("val/accuracy", higher_is_better=True, grace_steps=1))


KINDS = (Optim("sgd"), Optim("momentum", momentum=0.8), Optim("rmsprop", alpha=0.9), Optim("adam", betas=(0.9, 0.99)))


@pytest.mark.parametrize("seed", [0, 1])
def test_halving_finds_one_of_the_best_quarter_of_the_full_sweep_in_under_half_the_steps(seed: int) -> None:
    exponents = (-4 * torch.rand(32, generator=torch.Generator().manual_seed(seed))).tolist()
    optims = [replace(KINDS[n % 4], lr=10**exponent) for n, exponent in enumerate(exponents)]
    recipes: list[Recipe] = [in_float64(Parabola(seed=seed, optim=optim)) for optim in optims]
    full = train_packed(recipes)
    halved = train_packed(recipes, Rungs("val/loss", higher_is_better=False, grace_steps=64, reduction_factor=2))
    # 32 lanes up to step 64, 16 up to 128, 8 up to 256 and 4 up to the end, 384.
    assert (halved.lane_steps, full.lane_steps) == (64 * 32 + 64 * 16 + 128 * 8 + 128 * 4, 384 * 32)
    found, every = (
        sorted(heard.lines[lane][-1]["val/loss"] for lane, end in heard.ends.items() if end.state == "finished")
        for heard in (halved, full)
    )
    assert found[0] <= every[len(recipes) // 4 - 1] * (1 + TOLERANCE)


def test_a_pack_of_one_is_the_run(tmp_path: Path) -> None:
    recipe = in_float64(Digits(epochs=1, log_every_steps=1))
    run = train(recipe, tmp_path)
    heard = train_packed([recipe])
    assert heard.losses(0) == pytest.approx(losses(run), rel=TOLERANCE)
    end = heard.ends[0]
    assert end.last is not None
    assert end.last.weights.keys() == weights(run).keys()
