"""The batch-size finder: rows a second of micro-batches of growing size, up to what memory holds."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from blitz.api.train_run import TrainSettings
from blitz.data.arrays import MapStyleDataset
from blitz.data.plan import Chunk, Shares, fetch
from blitz.errors import RunFailed, require
from blitz.launch.local.in_process import threads_of, world_here
from blitz.recipe import Recipe
from blitz.training.batches import step_batches
from blitz.training.display import Silence
from blitz.training.model import Forward, build_model, forward_and_loss, oom_hint
from blitz.training.optimizer import Optimizers
from blitz.training.prepared import prepare
from blitz.training.world import World

_TRIAL_S = 0.3
_TRIALS = 3
_LEAST_ROWS = 2
_CLOSE = 1.05
"""A size that is at most so much faster than a smaller one is not worth its memory."""
_SLOWER_ON_A_CPU = 2
"""After so many sizes that bring nothing a CPU is not tried with larger ones; a GPU until its memory is full."""


@dataclass(frozen=True)
class BatchSizes:
    """Rows a second by micro-batch size, in ascending order."""

    rates: dict[int, float]
    out_of_memory: int | None
    """The first size that did not fit."""

    @property
    def proposed(self) -> int:
        """The smallest size about as fast as the fastest."""
        fastest = max(self.rates.values())
        return next(size for size, rate in self.rates.items() if rate * _CLOSE >= fastest)

    @property
    def largest(self) -> int:
        """The largest size that was tried and fits."""
        return max(self.rates)


def find_batch_sizes(settings: TrainSettings) -> BatchSizes:
    """Measure forward, backward and optimizer steps on rows in memory, on this machine's GPU or its CPUs.

    Raises:
        UserError: if the recipe cannot be trained.
        RunFailed: if not even the smallest micro-batch fits.
    """
    prepared = prepare(settings.recipe)
    recipe, rows = replace(prepared.recipe, micro_batch_size=None, patience=None), prepared.datasets["train"]
    world, found, brought_nothing = world_here(settings.scale), dict[int, float](), 0
    require(len(rows) >= _LEAST_ROWS, f"recipe {recipe.name} has {len(rows)} rows to train on; there must be more")
    with threads_of(recipe, Silence()):
        for size in (1 << power for power in range(1, len(rows).bit_length())):
            try:
                found[size] = _rate(recipe, rows, size, world)
            except RunFailed:
                if not found:
                    raise
                return BatchSizes(found, size)
            earlier = max((rate for one, rate in found.items() if one < size), default=0.0)
            brought_nothing = 0 if found[size] > _CLOSE * earlier else brought_nothing + 1
            if world.device.type == "cpu" and brought_nothing == _SLOWER_ON_A_CPU:
                break
    return BatchSizes(found, None)


def _rate(recipe: Recipe, rows: MapStyleDataset, size: int, world: World) -> float:
    """Rows a second of steps on one batch of `size` rows, which is fetched before."""
    plan = replace(recipe.plan(len(rows), 0), global_batch_size=size, total_steps=1, evaluate_every_steps=1)
    block = fetch(rows, Shares(plan, world_size=1, block_batches=1), Chunk("train", 0, 1), rank=0)
    batch = next(step_batches(block, plan, world))
    model = build_model(recipe, world)
    optimizers = Optimizers(recipe, model, plan)
    optimizers.freeze(0)
    forward, choices = Forward(recipe, model), recipe.choices(batch.step_draws)

    def passes(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            with oom_hint(size):
                ((columns, weights),) = batch.micro_batches(recipe)
                _, losses = forward_and_loss(recipe, forward, columns, world.device, choices)
                torch.dot(losses, weights.to(losses.dtype)).backward()
                optimizers.step(0)
                optimizers.zero_grad()
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
        return (time.perf_counter() - started) / count

    # The first pass allocates memory and optimizer state.
    passes(1)
    once = passes(1)
    # The fastest of some, because other work on the machine can only slow a pass down.
    return size / min(once, *(passes(max(1, round(_TRIAL_S / _TRIALS / once))) for _ in range(_TRIALS)))


def size_lines(found: BatchSizes) -> Sequence[str]:
    """The measurements, and what they say, in lines."""
    lines = [f"{size:6} rows: {rate:10.4g} rows a second" for size, rate in found.rates.items()]
    limit = f"; {found.out_of_memory} do not fit" if found.out_of_memory else ""
    return [
        *lines,
        f"--micro-batch-size {found.proposed} is about as fast as any; {found.largest} is the largest tried that fits"
        f"{limit}",
        "it changes nothing that is learned; --global-batch-size does",
    ]
