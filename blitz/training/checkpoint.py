"""Checkpoints: weights and optimizer state as safetensors, which hold tensors and never code."""

from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from blitz.errors import UserError
from blitz.run_files.directory import RunDirectory

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The weights, optimizer state and progress of a run at one step."""

    step: int
    weights: Tensors
    optimizer: Tensors
    state: dict[str, Any]

    def copied(self) -> "Checkpoint":
        """A copy on the CPU, which further training does not change."""
        return Checkpoint(self.step, _copies(self.weights), _copies(self.optimizer), self.state)

    def save(self, run: RunDirectory) -> None:
        """Write it; its tensors must be contiguous and share no memory, as those of `copied` do."""
        files = {"weights": self.weights, "optimizer": self.optimizer}
        run.write_checkpoint(
            self.step,
            {f"{name}.safetensors": safetensors.torch.save(tensors) for name, tensors in files.items()},
            self.state,
        )

    @classmethod
    def load(cls, run: RunDirectory, step: int) -> "Checkpoint":
        """Read a whole checkpoint, with its tensors on the CPU.

        Raises:
            UserError: if there is none of that step, or a file of it holds something else than tensors.
        """
        files, state = run.read_checkpoint(step)

        def tensors(name: str) -> Tensors:
            try:
                return safetensors.torch.load(files[name])
            except safetensors.SafetensorError as error:
                file = f"{run}/checkpoints/{step}/{name}"
                raise UserError(f"{file} is damaged ({error}); delete its folder, and an older one is taken") from error

        return cls(step, tensors("weights.safetensors"), tensors("optimizer.safetensors"), state)


def _copies(tensors: Tensors) -> Tensors:
    # One for each name: safetensors takes neither strided tensors nor two that share memory, as tied weights do.
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
