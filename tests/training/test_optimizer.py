import pytest
import torch
from torch import nn

from blitz.errors import UserError
from blitz.optim import Optim
from blitz.training.optimizer import build_optimizer, learning_rate


def test_warm_up_rises_to_the_peak_and_then_stays() -> None:
    settings = Optim(lr=0.4, warmup_steps=4)
    assert [learning_rate(settings, step, 8) for step in range(8)] == pytest.approx([0.1, 0.2, 0.3] + [0.4] * 5)


def test_cosine_falls_from_the_peak_to_zero_after_the_last_step() -> None:
    settings = Optim(lr=1.0, schedule="cosine", warmup_steps=2)
    rates = [learning_rate(settings, step, 12) for step in range(13)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[7] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0.0)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_cosine_without_warm_up_agrees_with_torch() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for step in range(10):
        assert learning_rate(Optim(lr=0.3, schedule="cosine"), step, 10) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


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
        ({"name": "sgd", "momentum": 1.0}, "--optim.momentum"),
        ({"name": "adam", "momentum": 0.9}, "--optim.betas"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_their_flag(fields: dict[str, float], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        Optim(**fields)  # type: ignore[arg-type]
