"""From a block of fetched rows to the batches of its steps, on the device."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from blitz.data.arrays import Columns
from blitz.data.order import Rows
from blitz.data.plan import Block, Plan
from blitz.randomness import Use, key_for, keys_for, uniforms
from blitz.recipe import Batch, Recipe
from blitz.training.world import World


@dataclass(frozen=True)
class RowDraws:
    """`blitz.randomness.Draws` of a rank's share of a batch."""

    numbers: Rows
    weights: Tensor
    seed: int
    epoch: int

    def __call__(self, count: int) -> Tensor:
        """Uniform numbers for each row."""
        keys = keys_for(key_for(Use.AUGMENTATION, self.seed, self.epoch), self.numbers.astype(np.uint64))
        return torch.from_numpy(uniforms(keys, count)).to(self.weights.device)

    @cached_property
    def partners(self) -> Tensor:
        """The index of each row's partner."""
        own = torch.arange(len(self.weights), device=self.weights.device)
        # 0 and 1, 2 and 3, and so on: a share begins with an even row of the global batch.
        other = (own ^ 1).clamp(max=len(own) - 1)
        return torch.where(self.weights[other] > 0, other, own)


@dataclass(frozen=True)
class StepBatch:
    """This rank's share of one step's batch."""

    columns: Batch
    """The columns as they were fetched."""
    weights: Tensor
    """(share,), float64: `world size / rows` of the global batch, and 0 for a pad row. So the weighted losses' sum,
    averaged over the ranks as DistributedDataParallel averages gradients, is the mean over the global batch."""
    rows: int
    """Rows of the global batch."""
    digest: int
    """Sum modulo 2^64 of a hash of each (step, row) in this share."""
    numbers: Rows
    """(share,): the row numbers."""
    seed: int
    epoch: int
    step: int

    @property
    def draws(self) -> RowDraws:
        """The random numbers of these rows."""
        return RowDraws(self.numbers, self.weights, self.seed, self.epoch)

    def step_draws(self, count: int) -> Tensor:
        """`blitz.recipe.StepDraws` of this step."""
        key = np.array([key_for(Use.CHOICES, self.seed, self.step)], np.uint64)
        return torch.from_numpy(uniforms(key, count)[0])

    def micro_batches(self, recipe: Recipe) -> Iterator[tuple[Batch, Tensor]]:
        """The share's columns, augmented and preprocessed, and weights, in pieces of `micro_batch_size` rows."""
        columns = laid_out(recipe, recipe.preprocess(recipe.augment(self.columns, self.draws)))
        size = recipe.micro_batch_size
        if size is None or size >= len(self.weights):
            yield columns, self.weights
            return
        for start in range(0, len(self.weights), size):
            part = slice(start, start + size)
            yield {name: column[part] for name, column in columns.items()}, self.weights[part]


def valid_rows(block: Block, plan: Plan, world: World) -> list[int]:
    """The number of rows that count in each global batch of a block.

    The plan knows it. Only where rows can turn out to be invalid do the ranks add up what they found, which waits.
    """
    planned = plan.batch_rows(block.chunk)
    if block.faults is None:
        return planned
    found: list[int] = world.sum(torch.from_numpy(block.valid_rows())).tolist()
    return found[: len(planned)]


def step_batches(block: Block, plan: Plan, world: World, rows: list[int] | None = None) -> Iterator[StepBatch]:
    """The batches of a block of training rows, in the order of their steps; `rows` are its `valid_rows`, if known."""
    rows = valid_rows(block, plan, world) if rows is None else rows
    scale = world.size / torch.tensor(rows, dtype=torch.float64).clamp(min=1)
    weights = torch.from_numpy(block.weights).reshape(-1, block.share)[: len(rows)]
    weights = (weights * scale[:, None]).to(world.device)
    columns = on_device(block.columns, world.device)
    # `split` cuts a whole block into its batches in one call: a slice for each would cost as much as a small layer.
    pieces = zip(*(column.split(block.share) for column in columns.values()), strict=True)
    steps = range(block.chunk.start, block.chunk.stop)
    numbers = block.rows.reshape(-1, block.share)
    for step, piece, weight, count, digest, taken in zip(
        steps, pieces, weights, rows, block.digests(), numbers, strict=False
    ):
        # Copies, because a copy starts at an aligned address: the order in which CPU kernels sum depends on it, and
        # where a batch lies in its block depends on where the run started.
        batch = {name: column.clone() for name, column in zip(columns, piece, strict=True)}
        yield StepBatch(batch, weight.clone(), count, digest, taken, plan.seed, step // plan.steps_per_epoch, step)


def on_device(columns: Columns, device: torch.device) -> Batch:
    """Fetched columns as tensors on the device."""
    return {name: torch.from_numpy(column).to(device, non_blocking=True) for name, column in columns.items()}


def laid_out(recipe: Recipe, batch: Batch) -> Batch:
    """A batch in the memory format of the recipe."""
    if not recipe.channels_last:
        return batch
    return {
        name: column.contiguous(memory_format=torch.channels_last) if column.dim() == 4 else column
        for name, column in batch.items()
    }
