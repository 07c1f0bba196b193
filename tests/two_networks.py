"""A recipe of two networks with an optimizer each: a generator of numbers, and a critic.

python -m tests.two_networks FOLDER     trains it there
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Adam, RMSprop

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.optim import Group, Optim
from blitz.recipe import Batch, Recipe, may_change
from blitz.training.loop import Checkpoints
from tests.running import train


@dataclass(frozen=True)
class TwoNetworks(Recipe):
    """A generative adversarial network (Goodfellow et al. 2014) for points on an ellipse."""

    epochs: int = may_change(40)
    global_batch_size: int = 13
    log_every_steps: int = may_change(1)
    optim: Optim = Optim(name="adam", lr=0.003, betas=(0.5, 0.9), grad_clip_norm=1.0)
    critic_optim: Optim = Optim(name="rmsprop", lr=0.001, momentum=0.5)

    def dataset(self, split: Split) -> ArrayDataset:
        random = np.random.default_rng(0)
        angles = random.uniform(0, 2 * np.pi, size=(200, 1))
        points = np.concatenate([2 * np.cos(angles), np.sin(angles)], 1).astype(np.float32)
        return ArrayDataset(real=points, noise=random.normal(size=(200, 4)).astype(np.float32))

    def build_model(self) -> nn.ModuleDict:
        def network(before: int, after: int) -> nn.Module:
            return nn.Sequential(nn.Linear(before, 16), nn.LeakyReLU(), nn.Linear(16, after))

        return nn.ModuleDict({"generator": network(4, 2), "critic": network(2, 1)})

    def parameter_groups(self, model: nn.Module, steps_per_epoch: int) -> Sequence[Group]:
        assert isinstance(model, nn.ModuleDict)
        return [
            Group("generator", [*model["generator"].parameters()]),
            Group("critic", [*model["critic"].parameters()], optim=self.critic_optim),
        ]

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, nn.ModuleDict)
        made, critic = model["generator"](batch["noise"]), model["critic"]
        # The generator's loss must not change the critic, nor the other way round.
        as_it_is = {name: parameter.detach() for name, parameter in critic.named_parameters()}
        return {
            "real": critic(batch["real"])[:, 0],
            "made": critic(made.detach())[:, 0],
            "passed": functional_call(critic, as_it_is, (made,))[:, 0],
        }

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        of_critic = F.softplus(-outputs["real"]) + F.softplus(outputs["made"])
        return of_critic + F.softplus(-outputs["passed"])


CHECKPOINTS = Checkpoints(every_steps=10)


def plain_loop(recipe: TwoNetworks, batches: Sequence[dict[str, Tensor]], model: nn.ModuleDict) -> list[float]:
    """The same steps in plain PyTorch; returns their losses."""
    of_generator = Adam(model["generator"].parameters(), lr=0.003, betas=(0.5, 0.9))
    of_critic = RMSprop(model["critic"].parameters(), lr=0.001, momentum=0.5)
    losses = []
    for batch in batches:
        made = model["generator"](batch["noise"])
        critic_loss: Any = F.softplus(-model["critic"](batch["real"])).mean()
        critic_loss = critic_loss + F.softplus(model["critic"](made.detach())).mean()
        generator_loss = F.softplus(-model["critic"](made)).mean()
        of_generator.zero_grad()
        generator_loss.backward()
        # The generator's loss has left gradients in the critic.
        of_critic.zero_grad()
        critic_loss.backward()
        nn.utils.clip_grad_norm_(model["generator"].parameters(), 1.0)
        of_generator.step()
        of_critic.step()
        losses.append((critic_loss + generator_loss).item())
    return losses


if __name__ == "__main__":
    train(TwoNetworks(), Path(sys.argv[1]), checkpoints=CHECKPOINTS)
