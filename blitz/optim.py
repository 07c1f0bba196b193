"""Settings of the optimizer, and groups of parameters with settings of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from blitz.data.plan import Plan
from blitz.errors import require
from blitz.fields import may_change


@dataclass(frozen=True)
class Optim:
    """The optimizer and its learning-rate schedule."""

    name: Literal["sgd", "momentum", "rmsprop", "adam", "adamw"] = "adam"
    """`momentum` is SGD with a momentum of 0.9 unless it is set."""
    lr: float = 1e-3
    """Learning rate: that of the schedule's peak."""
    momentum: float | None = None
    """For sgd, momentum and rmsprop."""
    betas: tuple[float, float] = (0.9, 0.999)
    """For adam and adamw: decay rates of the two moments."""
    alpha: float = 0.99
    """For rmsprop: decay rate of the squared gradients."""
    weight_decay: float = 0.0
    """L2 penalty; for adamw decoupled from the gradient."""
    grad_clip_norm: float | None = None
    """Scale gradients down to this global L2 norm."""
    schedule: Literal["constant", "cosine", "flat_cosine", "coslog"] = "constant"
    """The learning rate after warm-up. All but constant end at 0 with the last step: cosine falls from the start,
    flat_cosine from half-way, and coslog rises and falls four times, each time over twice as many steps."""
    schedule_epochs: float | None = may_change(None)
    """Epochs after which cosine ends, if that is not the end of the run: set it from the start for a run that will be
    extended later, or when a run is extended, to follow the new schedule from its current step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""

    def __post_init__(self) -> None:
        for name, rate in (("betas", min(self.betas)), ("betas", max(self.betas)), ("alpha", self.alpha)):
            require(0 <= rate < 1, f"--optim.{name} holds {rate}; it must be in [0, 1)")
        require(self.lr > 0, f"--optim.lr is {self.lr}; it must be above 0")
        require(self.weight_decay >= 0, f"--optim.weight-decay is {self.weight_decay}; it must not be below 0")
        require(self.warmup_steps >= 0, f"--optim.warmup-steps is {self.warmup_steps}; it must not be below 0")
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

    def schedule_steps(self, plan: Plan) -> int:
        """Steps after which the schedule ends."""
        if self.schedule_epochs is None:
            return plan.total_steps
        return round(self.schedule_epochs * plan.steps_per_epoch)


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
