"""What a step costs each process of a run on 8 to 4,096 ranks: plans, shares, collectives and messages, on one machine.

    python -m bench.scale [--ranks 8 64 512 4096] [--steps 40]

One process runs the real loop as rank 0 and then as another of so many ranks, in a process group whose collectives
are counted and send nothing (torch's "fake" backend). Each rank takes 32 rows a step of as many as ImageNet has, in
blocks as its pixels of 224 × 224 would be; the rows that are trained on are of 8 × 8, so that the model costs little.
Times are CPU times. What Ray's processes do follows from the plan and the feed. The last lines are a table for
docs/costs.md.
"""

import argparse
import math
import pickle
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore  # type: ignore[attr-defined]

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Block, Plan, Shares, fetch
from blitz.launch.cluster.feeds import StreamFeed
from blitz.launch.cluster.ray_train import SECONDS_BETWEEN_HEALTH_CHECKS
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.training.display import Silence
from blitz.training.loop import TrainJob
from blitz.training.session import Session
from blitz.training.world import World

_SHARE, _EPOCHS = 32, 90
_TRAIN_ROWS, _EVAL_ROWS, _ROW_BYTES = 1_281_167, 50_000, 3 * 224 * 224 + 8
_WARM_UP = 10
_CHECKPOINT_BYTES = 2 * 4 * 25_557_032
"""Of ResNet-50 with momentum, in float32."""
_FAULT = "train,img_000123.jpg,1234,the image is truncated (12 bytes are missing)"


@dataclass
class Collectives:
    """Those that were called, beside the gradients of DistributedDataParallel."""

    calls: int = 0
    bytes: int = 0

    def __sub__(self, other: "Collectives") -> "Collectives":
        return Collectives(self.calls - other.calls, self.bytes - other.bytes)

    @contextmanager
    def counted(self, rank: int, size: int) -> Iterator[None]:
        """Count in this context; where a tensor has a part for each rank, the others send the same as this one."""

        def count(tensor: Tensor, **_: object) -> None:
            self.calls, self.bytes = self.calls + 1, self.bytes + tensor.nbytes
            if tensor.dim() and len(tensor) % size == 0:
                parts = tensor.view(size, -1)
                parts[:] = parts[rank].clone()

        with mock.patch.object(dist, "all_reduce", count), mock.patch.object(dist, "broadcast", count):
            yield


def _size(count: float) -> str:
    power = min(4, int(math.log10(max(1, count))) // 3)
    return f"{count / 1000**power:.3g} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


class _Alone(World):
    """A rank whose gradients are averaged with nobody's."""

    def replicate(self, model: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
        replica = super().replicate(model, find_unused_parameters=find_unused_parameters)
        assert isinstance(replica, DistributedDataParallel)
        replica.register_comm_hook(None, _returned)
        return replica


def _returned(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    future = torch.futures.Future[Tensor]()
    future.set_result(bucket.buffer())
    return future


@contextmanager
def world_of(rank: int, size: int) -> Iterator[World]:
    """This process as one rank of a process group in which the others do nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    try:
        yield _Alone.of(torch.device("cpu"))
    finally:
        dist.destroy_process_group()


@dataclass
class _Mark:
    """A moment of the loop: the process's CPU seconds, and the collectives until then."""

    collectives: Collectives
    cpu_s: float = field(default_factory=time.process_time)


def trained(plan: Plan, rank: int, size: int) -> tuple[float, float, Collectives]:
    """CPU ms and calls of collectives of a step of the loop, and the collectives of the pass that ends it."""
    shape = (_TRAIN_ROWS, 1, 8, 8)
    dataset = ArrayDataset(inputs=np.broadcast_to(np.uint8(0), shape), targets=np.zeros(_TRAIN_ROWS, np.int64))
    shares = Shares.of(plan, world_size=size, row_bytes=_ROW_BYTES)
    collectives = Collectives()
    marks: dict[str, _Mark] = {}

    def blocks() -> Iterator[Block]:
        for chunk in shares.chunks(0):
            # The first steps import what torch imports late.
            if chunk.split == "val" or chunk.start >= _WARM_UP:
                marks.setdefault(chunk.split, _Mark(replace(collectives)))
            yield fetch(dataset, shares, chunk, rank)

    with world_of(rank, size) as world, tempfile.TemporaryDirectory(prefix="scale-") as folder:
        recipe = Digits(global_batch_size=plan.global_batch_size, log_every_steps=10)
        with collectives.counted(rank, size):
            TrainJob(recipe, plan, RunDirectory.of(folder)).start(blocks(), Session(world, 0, Silence()))
    train, val, steps = marks["train"], marks["val"], plan.total_steps - _WARM_UP
    a_step = (val.collectives - train.collectives).calls / steps
    return (val.cpu_s - train.cpu_s) * 1000 / steps, a_step, collectives - val.collectives


def planned(plan: Plan, size: int) -> float:
    """CPU ms a step for the last rank's rows, weights and digest, from the middle of the run."""
    shares = Shares.of(plan, world_size=size, row_bytes=_ROW_BYTES)
    dataset = ArrayDataset(inputs=np.broadcast_to(np.uint8(0), (_TRAIN_ROWS, 1)))
    began, steps = time.process_time(), 200
    for chunk in islice(shares.chunks(plan.total_steps // 2), steps):
        fetch(dataset, shares, chunk, size - 1).digests()
    return (time.process_time() - began) * 1000 / steps


def gathered(size: int) -> tuple[float, Collectives]:
    """CPU ms and collectives of a block in which every rank finds one invalid row."""
    collectives, rank = Collectives(), size - 1
    with world_of(rank, size) as world, collectives.counted(rank, size):
        began = time.process_time()
        world.gather([_FAULT])
        return (time.process_time() - began) * 1000, collectives


def measure(size: int, steps: int) -> Iterator[tuple[str, str]]:
    """The rows of the table for so many ranks."""
    batch = _SHARE * size
    whole = Plan(_TRAIN_ROWS, _EVAL_ROWS, batch, _EPOCHS * -(-_TRAIN_ROWS // batch), -(-_TRAIN_ROWS // batch), seed=0)
    part = replace(whole, total_steps=_WARM_UP + steps, evaluate_every_steps=_WARM_UP + steps)
    shares = Shares.of(whole, world_size=size, row_bytes=_ROW_BYTES)
    first, a_step, a_pass = trained(part, 0, size)
    other, _, _ = trained(part, 1, size)
    parsing, faults = gathered(size)
    yield "rank: rows of a step, CPU ms", f"{planned(whole, size):.2f}"
    yield "rank: the loop, CPU ms a step", f"{other:.1f}"
    yield "rank 0: the loop, CPU ms a step", f"{first:.1f}"
    yield "collectives a step beside the gradients", f"{a_step:.2g}"
    yield "evaluation and checkpoint: collectives, bytes", f"{a_pass.calls}, {_size(a_pass.bytes)}"
    yield "an invalid row on each rank: bytes summed, CPU ms", f"{_size(faults.bytes)}, {parsing:.0f}"
    yield "pad rows of an epoch", f"{1 - _TRAIN_ROWS / (whole.steps_per_epoch * batch):.1%}"
    in_group = min(size, StreamFeed.ranks_per_stream)
    yield "streams", f"{-(-size // in_group)}"
    tasks = in_group / shares.block_batches
    yield "stream: tasks and calls a step", f"{tasks:.3g}, at most {tasks:.3g}"
    task = pickle.dumps((shares, next(shares.chunks(0)), size - 1))
    yield "read tasks a step, bytes of what tells them apart", f"{size / shares.block_batches:,.0f}, {_size(len(task))}"
    yield "controller: polls of workers a second", f"{size / SECONDS_BETWEEN_HEALTH_CHECKS:,.0f}"
    yield "restart: files of the checkpoint read by all ranks", _size(size * _CHECKPOINT_BYTES)


def main() -> None:
    """Measure every number of ranks, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 512, 4096])
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [dict(measure(size, options.steps)) for size in options.ranks]
    print("| ranks | " + " | ".join(f"{size:,}" for size in options.ranks) + " |")
    print("|---" * (1 + len(found)) + "|")
    for name in found[0]:
        print(f"| {name} | " + " | ".join(one[name] for one in found) + " |")


if __name__ == "__main__":
    main()
