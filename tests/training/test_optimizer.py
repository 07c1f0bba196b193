from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from blitz.data.plan import Plan
from blitz.errors import UserError
from blitz.optim import Optim
from blitz.training.optimizer import build_optimizer, learning_rate


def rates(settings: Optim, steps: int, steps_per_epoch: int = 1) -> list[float]:
    """The learning rate of each step of a run of `steps`."""
    plan = Plan(steps_per_epoch, 0, 1, total_steps=steps, evaluate_every_steps=1, seed=0)
    return [learning_rate(settings, step, plan) for step in range(steps)]


def test_warm_up_rises_to_the_peak_and_then_stays() -> None:
    assert rates(Optim(lr=0.4, warmup_steps=4), 8) == pytest.approx([0.1, 0.2, 0.3] + [0.4] * 5)
    assert rates(Optim(lr=0.4, warmup_fraction=0.5), 8) == pytest.approx([0.1, 0.2, 0.3] + [0.4] * 5)


def test_cosine_falls_from_the_peak_after_warm_up() -> None:
    found = rates(Optim(lr=1.0, schedule="cosine", warmup_steps=2), 12)
    assert found[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert found[7] == pytest.approx(0.5)
    assert found[2:] == sorted(found[2:], reverse=True)


@pytest.mark.parametrize(
    ("settings", "torchs"),
    [
        (Optim(schedule="cosine"), lambda one: lr_scheduler.CosineAnnealingLR(one, T_max=20)),
        (Optim(schedule="linear"), lambda one: lr_scheduler.PolynomialLR(one, total_iters=20, power=1)),
        (Optim(schedule="polynomial", power=3.0), lambda one: lr_scheduler.PolynomialLR(one, total_iters=20, power=3)),
        (
            Optim(schedule="step", step_epochs=2, step_factor=0.3),
            lambda one: lr_scheduler.StepLR(one, step_size=8, gamma=0.3),
        ),
        (Optim(schedule="one_cycle"), lambda one: lr_scheduler.OneCycleLR(one, max_lr=0.3, total_steps=20)),
    ],
    ids=lambda one: one.schedule if isinstance(one, Optim) else "",
)
def test_schedules_are_those_of_torch(settings: Optim, torchs: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler, expected = torchs(optimizer), []
    for _ in range(20):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    # Four steps an epoch.
    assert rates(replace(settings, lr=0.3), 20, steps_per_epoch=4) == pytest.approx(expected, abs=1e-12)


def test_coslog_falls_to_zero_four_times_each_time_after_twice_as_many_steps() -> None:
    found = rates(Optim(lr=0.5, schedule="coslog"), 15)
    # In 15 steps the cycles end after 1, 3, 7 and 15 of them.
    assert [step for step, rate in enumerate(found) if rate < 1e-12] == [0, 1, 3, 7]
    assert max(found) == pytest.approx(0.5, rel=0.02)


def test_wsd_warms_up_stays_and_falls_to_zero_in_its_last_part() -> None:
    found = rates(Optim(lr=1.0, schedule="wsd", warmup_fraction=0.2, decay_fraction=0.4), 10)
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(
    ("settings", "momentum"),
    [
        (Optim(name="sgd"), 0.0),
        (Optim(name="sgd", momentum=0.8), 0.8),
        (Optim(name="momentum"), 0.9),
        (Optim(name="momentum", momentum=0.8), 0.8),
        (Optim(name="rmsprop", momentum=0.7), 0.7),
    ],
)
def test_momentum_is_what_was_asked_for(settings: Optim, momentum: float) -> None:
    assert build_optimizer(settings, nn.Linear(1, 1).parameters()).param_groups[0]["momentum"] == momentum


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"lr": 0.0}, "--optim.lr"),
        ({"weight_decay": -1.0}, "--optim.weight-decay"),
        ({"warmup_steps": -1}, "--optim.warmup-steps"),
        ({"grad_clip_norm": 0.0}, "--optim.grad-clip-norm"),
        ({"warmup_steps": 3, "warmup_fraction": 0.1}, "--optim.warmup-fraction"),
        ({"schedule": "one_cycle", "warmup_steps": 3}, "one_cycle warms up by itself"),
        ({"layer_decay": 1.5}, "--optim.layer-decay"),
        ({"decay_fraction": 0.0}, "--optim.decay-fraction"),
        ({"custom": "torch.optim.Adam"}, "--optim.custom"),
        ({"arguments": (("beta", 1.0),)}, "--optim.arguments"),
        ({"name": "sgd", "momentum": 1.0}, "--optim.momentum"),
        ({"name": "adam", "momentum": 0.9}, "--optim.betas"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_their_flag(fields: dict[str, float], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        Optim(**fields)  # type: ignore[arg-type]
