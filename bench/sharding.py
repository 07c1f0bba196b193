"""Peak memory of each process for a Transformer with AdamW, on 1, 2 and 4 processes, sharded and not.

    python -m bench.sharding [--layers N] [--width W] [--workers 1 2 4] [--most-gib G]

Gloo on the CPUs of this machine. Peaks are VmHWM of /proc/self/status less what the process had before it built the
model, and are reset between building and training. A run that would take more than --most-gib in all is left out.
"""

import argparse
import multiprocessing
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.models.language_model import LanguageModel
from blitz.optim import Optim
from blitz.recipe import Batch, Recipe
from blitz.training.model import build_forward, forward_and_loss
from blitz.training.optimizer import Optimizers
from blitz.training.world import World

_VOCABULARY, _LENGTH, _ROWS, _STEPS = 1000, 32, 2, 2
_STATE_BYTES = 16
"""Bytes a parameter: itself, its gradient and AdamW's two averages, in fp32."""


@dataclass(frozen=True)
class RandomTokens(Recipe):
    """Random tokens for a decoder-only Transformer."""

    optim: Optim = Optim(name="adamw", lr=1e-4)
    width: int = 1024
    layers: int = 16

    def dataset(self, split: Split) -> ArrayDataset:
        """See `Recipe`."""
        return ArrayDataset(inputs=np.random.default_rng(0).integers(_VOCABULARY, size=(_ROWS, _LENGTH)))

    def build_model(self) -> nn.Module:
        """See `Recipe`."""
        return LanguageModel(
            vocabulary=_VOCABULARY, width=self.width, layers=self.layers, heads=self.width // 64, dropout=0
        )

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See `Recipe`."""
        losses = F.cross_entropy(outputs.flatten(0, 1), batch["inputs"].flatten(), reduction="none")
        return losses.reshape(_ROWS, _LENGTH).mean(1)


def _peak_bytes() -> int:
    (kib,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024


def _reset_peak() -> int:
    """Returns what the process has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _measure(rank: int, workers: int, sharded: bool, recipe: RandomTokens, folder: str, found: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers)
    world = World.of(torch.device("cpu"), sharded=sharded)
    before = _reset_peak()
    module = build_forward(recipe, world)
    building = _peak_bytes() - before
    replica = world.replicate(module, find_unused_parameters=False)
    optimizers = Optimizers(recipe, module.model, recipe.plan(_ROWS, 0))
    optimizers.freeze(0)
    batch = {"inputs": torch.from_numpy(recipe.dataset("train").columns["inputs"])}
    _reset_peak()
    for step in range(_STEPS):
        _, losses = forward_and_loss(recipe, replica, batch, world.device)
        losses.sum().backward()
        optimizers.step(step)
        optimizers.zero_grad()
    found.put((building, _peak_bytes() - before))
    dist.barrier()
    dist.destroy_process_group()


def measured(recipe: RandomTokens, workers: int, *, sharded: bool) -> tuple[int, int]:
    """The highest peaks of a process, in bytes, while it builds the model and while it trains."""
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=_measure, args=(rank, workers, sharded, recipe, folder, found))
            for rank in range(workers)
        ]
        for rank in ranks:
            rank.start()
        peaks = [found.get() for _ in ranks]
        for rank in ranks:
            rank.join()
    building, training = (max(each) for each in zip(*peaks, strict=True))
    return building, training


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=RandomTokens.width)
    parser.add_argument("--layers", type=int, default=RandomTokens.layers)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--most-gib", type=float, default=16.0)
    given = parser.parse_args()
    recipe = RandomTokens(width=given.width, layers=given.layers)
    with torch.device("meta"):
        parameters = sum(one.numel() for one in recipe.build_model().parameters())
    state = parameters * _STATE_BYTES
    print(f"{parameters / 1e6:.0f} million parameters: {state / 2**30:.2f} GiB with gradients and AdamW's state")
    print("| workers | sharded | building, GiB | training, GiB | training, of the whole state |\n|---|---|---|---|---|")
    for workers in given.workers:
        for sharded in [False, True][: 1 + (workers > 1)]:
            expected = state * (1 if sharded else workers) / 2**30
            if expected * 1.2 + workers * 0.3 > given.most_gib:
                print(f"| {workers} | {'yes' if sharded else 'no'} | left out: some {expected:.1f} GiB in all | | |")
                continue
            building, training = measured(recipe, workers, sharded=sharded)
            shown = f"{building / 2**30:.2f} | {training / 2**30:.2f} | {training / state:.2f}"
            print(f"| {workers} | {'yes' if sharded else 'no'} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
