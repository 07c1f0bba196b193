"""Settings of the optimizer, and groups of parameters with settings of their own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from blitz.data.plan import Plan
from blitz.errors import require
from blitz.fields import may_change

OptimizerName = Literal["sgd", "momentum", "rmsprop", "adam", "adamw", "muon"]
Schedule = Literal["constant", "cosine", "linear", "polynomial", "step", "one_cycle", "wsd", "coslog", "exponential"]


@dataclass(frozen=True)
class Optim:
    """The optimizer and its learning-rate schedule."""

    name: OptimizerName = "adam"
    """`momentum` is SGD with a momentum of 0.9 unless it is set; `muon` is for matrices, with AdamW for the rest."""
    lr: float = 1e-3
    """Learning rate: that of the schedule's peak."""
    custom: str | None = None
    """An optimizer class to use instead, as package.module:Class, such as torch.optim:NAdam."""
    arguments: tuple[tuple[str, float | bool | str], ...] = ()
    """Arguments of that class by name, such as momentum_decay 0.01; the learning rate is passed as lr."""
    momentum: float | None = None
    """For sgd, momentum and rmsprop."""
    betas: tuple[float, float] = (0.9, 0.999)
    """For adam and adamw: decay rates of the two moments."""
    alpha: float = 0.99
    """For rmsprop: decay rate of the squared gradients."""
    weight_decay: float = 0.0
    """L2 penalty; for adamw and muon decoupled from the gradient."""
    decay_all: bool = True
    """Whether weight decay applies to all parameters, or only to those other than norms, biases and embeddings."""
    layer_decay: float | None = None
    """For fine-tuning: a layer's learning rate as a multiple of that of the next layer; the last has the full one."""
    grad_clip_norm: float | None = None
    """Scale gradients down to this global L2 norm."""
    schedule: Schedule = "constant"
    """The learning rate after warm-up; all but constant and step end at 0, or near it, with the last step. one_cycle
    warms up by itself, wsd (warm-up, stable, decay) is constant until its end falls linearly, coslog rises and falls
    four times, each time over twice as many steps; exponential rises from 1e-8 of the rate to all of it, as --find-lr
    does."""
    schedule_epochs: float | None = may_change(None)
    """Epochs after which the schedule ends, if that is not the end of the run: set it from the start for a run that
    will be extended later, or when a run is extended, to follow the new schedule from its current step."""
    power: float = 2.0
    """For polynomial: its power."""
    step_epochs: float = 10.0
    """For step: epochs after which the learning rate falls, each time."""
    step_factor: float = 0.1
    """For step: the factor by which it falls."""
    decay_fraction: float = 0.2
    """For wsd: the share of the steps in which it falls."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    warmup_fraction: float | None = None
    """Warm-up as a fraction of the schedule's steps, instead of their number."""

    def __post_init__(self) -> None:
        for name, rate in (("betas", min(self.betas)), ("betas", max(self.betas)), ("alpha", self.alpha)):
            require(0 <= rate < 1, f"--optim.{name} holds {rate}; it must be in [0, 1)")
        require(self.lr > 0, f"--optim.lr is {self.lr}; it must be above 0")
        require(self.weight_decay >= 0, f"--optim.weight-decay is {self.weight_decay}; it must not be below 0")
        require(self.warmup_steps >= 0, f"--optim.warmup-steps is {self.warmup_steps}; it must not be below 0")
        layer, warm = self.layer_decay, self.warmup_fraction
        require(layer is None or 0 < layer <= 1, f"--optim.layer-decay is {layer}; it must be above 0 and at most 1")
        require(warm is None or 0 < warm < 1, f"--optim.warmup-fraction is {warm}; it must be between 0 and 1")
        require(warm is None or not self.warmup_steps, "--optim.warmup-fraction: give it or --optim.warmup-steps")
        warms = self.schedule == "one_cycle" and (self.warmup_steps or warm is not None)
        require(not warms, "--optim.schedule one_cycle warms up by itself; leave --optim.warmup-… out")
        require(self.power > 0, f"--optim.power is {self.power}; it must be above 0")
        require(self.step_epochs > 0, f"--optim.step-epochs is {self.step_epochs}; it must be above 0")
        require(self.step_factor > 0, f"--optim.step-factor is {self.step_factor}; it must be above 0")
        share = self.decay_fraction
        require(0 < share <= 1, f"--optim.decay-fraction is {share}; it must be above 0 and at most 1")
        require(
            self.custom is None or self.custom.partition(":")[2].isidentifier(),
            f"--optim.custom is {self.custom}; give package.module:Class",
        )
        require(self.custom is not None or not self.arguments, "--optim.arguments are for --optim.custom")
        epochs = self.schedule_epochs
        require(epochs is None or epochs > 0, f"--optim.schedule-epochs is {epochs}; it must be above 0")
        clip = self.grad_clip_norm
        require(clip is None or clip > 0, f"--optim.grad-clip-norm is {clip}; it must be above 0")
        if self.momentum is not None:
            require(0 <= self.momentum < 1, f"--optim.momentum is {self.momentum}; it must be in [0, 1)")
            require(
                self.name in ("sgd", "momentum", "rmsprop"),
                f"--optim.momentum does not apply to {self.name}; use --optim.betas",
            )

    @property
    def has_end(self) -> bool:
        """Whether the learning rate depends on the length of the run."""
        return self.schedule not in ("constant", "step") or self.warmup_fraction is not None

    @property
    def warms_up(self) -> bool:
        """Whether there is a warm-up before the schedule."""
        return self.warmup_steps > 0 or self.warmup_fraction is not None

    def schedule_steps(self, plan: Plan) -> int:
        """Steps after which the schedule ends."""
        if self.schedule_epochs is None:
            return plan.total_steps
        return round(self.schedule_epochs * plan.steps_per_epoch)


@dataclass(frozen=True)
class Swa:
    """Stochastic weight averaging: the weights at the ends of the last epochs, averaged (Izmailov et al. 2018)."""

    from_epoch: float | None = None
    """Average the weights at the end of every epoch from this one on, such as 15 of 20; the average is evaluated and
    kept."""
    lr: float | None = None
    """Constant learning rate after that epoch, instead of the schedule's."""

    def __post_init__(self) -> None:
        epoch, rate = self.from_epoch, self.lr
        require(epoch is None or epoch > 0, f"--swa.from-epoch is {epoch}; it must be above 0")
        require(rate is None or rate > 0, f"--swa.lr is {rate}; it must be above 0")
        require(rate is None or epoch is not None, "--swa.lr goes with --swa.from-epoch")

    def require_within(self, epochs: int) -> None:
        """Refuse to average no weights.

        Raises:
            UserError: if a run of so many epochs ends before the first that is averaged.
        """
        epoch = self.from_epoch
        require(epoch is None or epoch <= epochs, f"--swa.from-epoch is {epoch}, and --epochs is {epochs}; lower it")

    def averaged(self, plan: Plan, step: int) -> int:
        """How many weights are averaged once `step` steps are done."""
        if self.from_epoch is None:
            return 0
        return max(0, step // plan.steps_per_epoch - math.ceil(self.from_epoch) + 1)

    def rate(self, plan: Plan, step: int) -> float | None:
        """The learning rate of a step, counted from 0, if it is not the schedule's."""
        return self.lr if self.from_epoch is not None and step >= self.from_epoch * plan.steps_per_epoch else None


@dataclass(frozen=True)
class ModelOptim(Optim):
    """The optimizer and its learning-rate schedule; by default those of the model."""

    # None until the recipe is fitted. tyro takes the docstrings of `Optim`.
    name: OptimizerName | None = None  # type: ignore[assignment]
    lr: float | None = None  # type: ignore[assignment]
    betas: tuple[float, float] | None = None  # type: ignore[assignment]
    weight_decay: float | None = None  # type: ignore[assignment]
    schedule: Schedule | None = None  # type: ignore[assignment]
    decay_fraction: float | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        # Checks what is given.
        Optim(**{name: value for name, value in vars(self).items() if value is not None})


def completed(optim: Optim, usual: Optim) -> ModelOptim:
    """`optim` with the values of `usual` where it has none; a plain `Optim` has all."""
    given = {name: value for name, value in vars(optim).items() if value is not None}
    return ModelOptim(**{**vars(usual), **given})


@dataclass(frozen=True, eq=False)
class Group:
    """Parameters that are learned in the same way."""

    name: str
    parameters: Sequence[nn.Parameter]
    lr_factor: float = 1.0
    """Their learning rate, as a multiple of their optimizer's."""
    optim: Optim | None = None
    """Their own optimizer; groups without one share the recipe's. Each clips the gradients of its own parameters."""
    from_step: int | None = 0
    """The first step in which they are trained; None is never. Until then they are frozen, and batch norms among them
    neither use nor update batch statistics."""
