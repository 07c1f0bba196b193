"""The ranks of a run and their collective operations, which with one rank do nothing."""

import json
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from blitz.randomness import MASK64


@dataclass(frozen=True)
class World:
    """This rank, the number of ranks, and this rank's device."""

    rank: int
    size: int
    device: torch.device
    sharded: bool = False
    """Whether the model is divided over the ranks, of which there are several."""

    @classmethod
    def of(cls, device: torch.device, *, sharded: bool = False) -> "World":
        """The process group that torch.distributed has been given, or this process alone."""
        if not dist.is_initialized():
            return cls(0, 1, device)
        size = dist.get_world_size()
        return cls(dist.get_rank(), size, device, sharded and size > 1)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, on the CPU, of a tensor of the same shape and type on each."""
        if self.size == 1:
            return tensor.cpu()
        total = tensor.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.cpu()

    def gather(self, lines: list[str]) -> list[str]:
        """The lines of all ranks, in the order of the ranks."""
        mine = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        lengths = self.sum((torch.arange(self.size) == self.rank) * len(mine))
        start, total = int(lengths[: self.rank].sum()), int(lengths.sum())
        if not total:
            return []
        # One after the other: with a row of the longest length for each rank it would grow with their number.
        texts = torch.zeros(total, dtype=torch.uint8)
        texts.numpy().data[start : start + len(mine)] = mine
        return [json.loads(line) for line in self.sum(texts).numpy().tobytes().splitlines()]

    def sum_digest(self, digest: int) -> int:
        """The sum over ranks modulo 2^64 of an integer below 2^64."""
        # In halves: a sum of 64-bit numbers would overflow.
        low, high = self.sum(torch.tensor([digest & 0xFFFFFFFF, digest >> 32]))
        return (int(low) + (int(high) << 32)) & MASK64

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank the buffers of rank 0."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def replicate(self, model: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
        """`model`, with its gradients averaged over the ranks."""
        if self.size == 1 or self.sharded:
            return model
        return DistributedDataParallel(model, find_unused_parameters=find_unused_parameters)

    def seed_generators(self, seed: int) -> None:
        """Set the state of the generators that dropout and the like draw from on this device."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
