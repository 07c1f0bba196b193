"""Checkpoints: weights and optimizer state as safetensors, which hold tensors and never code."""

from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from blitz.training.run_directory import RunDirectory

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """One step of a run, and the numbers that go with it."""

    step: int
    weights: Tensors
    optimizer: Tensors
    state: dict[str, Any]

    def save(self, run: RunDirectory) -> None:
        """Write it; the tensors may lie on any device."""
        files = {"weights.safetensors": _bytes(self.weights), "optimizer.safetensors": _bytes(self.optimizer)}
        run.write_checkpoint(self.step, files, self.state)

    @classmethod
    def load(cls, run: RunDirectory, step: int) -> "Checkpoint":
        """Read a whole checkpoint, with its tensors on the CPU.

        Raises:
            UserError: if there is none of that step.
        """
        files, state = run.read_checkpoint(step)
        weights, optimizer = (safetensors.torch.load(files[f"{name}.safetensors"]) for name in ("weights", "optimizer"))
        return cls(step, weights, optimizer, state)


def _bytes(tensors: Tensors) -> bytes:
    # Contiguous copies: safetensors takes neither strided tensors nor two that share memory, as tied weights do.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    return safetensors.torch.save(copies)
