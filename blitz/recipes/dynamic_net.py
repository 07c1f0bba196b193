"""A net whose depth every step chooses: control flow, shared weights, and weights that some steps do not use."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.noise import noise
from blitz.data.plan import Split
from blitz.errors import require
from blitz.models.random_depth_net import DynamicNet
from blitz.optim import Optim
from blitz.recipe import Batch, Recipe, StepDraws

_ROWS, _INPUTS, _HIDDEN, _TARGETS, _MOST_REPEATS = 64, 1000, 100, 10, 3


@dataclass(frozen=True)
class DynamicNetOnNoise(Recipe):
    """0 to 3 repeats of one middle layer, drawn for each step, on 64 random examples; `val` is the same examples."""

    epochs: int = 500
    global_batch_size: int = _ROWS
    evaluate_every_steps: int | None = 100
    log_every_steps: int = 100
    find_unused_parameters: bool = True
    optim: Optim = Optim(name="momentum", lr=1e-4)
    eval_repeats: int = 1
    """Repeats of the middle layer in evaluation, where nothing is drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.eval_repeats >= 0, f"--eval-repeats is {self.eval_repeats}; it must not be below 0")

    def dataset(self, split: Split) -> ArrayDataset:
        return noise(rows=_ROWS, inputs=_INPUTS, targets=_TARGETS, seed=self.seed)

    def build_model(self) -> nn.Module:
        return DynamicNet(inputs=_INPUTS, hidden=_HIDDEN, outputs=_TARGETS)

    def choices(self, draws: StepDraws) -> dict[str, Any]:
        return {"repeats": int(draws(1) * (_MOST_REPEATS + 1))}

    def forward(self, model: nn.Module, batch: Batch, *, repeats: int | None = None) -> Tensor:
        outputs: Tensor = model(batch["inputs"], self.eval_repeats if repeats is None else repeats)
        return outputs

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        # Scaled so that the mean over the rows is the sum over them.
        return _ROWS * (outputs - batch["targets"]).square().sum(1)
