"""Checkpoints: weights and optimizer state as safetensors, which hold tensors and never code."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from blitz.errors import UserError
from blitz.run_files.checkpoint_digests import Seal
from blitz.run_files.checkpoint_names import KINDS, kind_of
from blitz.run_files.directory import RunDirectory
from blitz.training.sharding import WHOLE, Part, as_divided, is_divided, own_rows

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The weights, optimizer state and progress of a run at one step, or this rank's rows of them."""

    step: int
    weights: Tensors
    optimizer: Tensors
    state: dict[str, Any]

    def copied(self, *, leads: bool = True) -> "Checkpoint":
        """A copy on the CPU, which further training does not change.

        Of a tensor that is divided over the ranks, this rank's rows; those that are not are kept by the leading rank.
        """
        weights, optimizer = _copies(self.weights, leads=leads), _copies(self.optimizer, leads=leads)
        return Checkpoint(self.step, weights, optimizer, self.state)

    def save(self, run: RunDirectory, part: Part = WHOLE) -> None:
        """Write it, or this rank's part; its tensors must be contiguous and share no memory, as those of `copied` do.

        Raises:
            OSError: on every rank, if the storage of one of them does not take its part.
        """
        files = {"weights": self.weights, "optimizer": self.optimizer}
        written: dict[str, Seal] | OSError
        try:
            written = run.write_part(
                self.step, part.rank, part.count, {kind: safetensors.torch.save(files[kind]) for kind in KINDS}
            )
        except OSError as error:
            written = error
        seals: dict[str, Seal] = {}
        for one in part.gather(written):
            if isinstance(one, OSError):
                raise one
            seals |= one
        if part.rank == 0:
            run.seal_checkpoint(self.step, seals, self.state)

    def give_weights(self, model: nn.Module, run: RunDirectory) -> None:
        """Load the weights into a model of the run.

        Raises:
            UserError: if they do not fit it, as where its code has changed since.
        """
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            # The first line names the class alone.
            first, *more = [line.strip(" \t.") for line in str(error).splitlines()[1:]] or [str(error)]
            raise UserError(
                f"{run}/checkpoints/{self.step}: its weights do not fit the model that the recipe builds "
                f"({first}{f'; and {len(more)} more' if more else ''}); give it the code and the settings that the run "
                "was made with"
            ) from error

    @classmethod
    def load(
        cls, run: RunDirectory, step: int, like: Mapping[str, Tensor] | None = None, *, weights_only: bool = False
    ) -> "Checkpoint":
        """Read a checkpoint, with its tensors on the CPU, file by file.

        Where `like`, a model's state_dict, has tensors that are divided over the ranks, so are these, and memory holds
        this rank's rows and one file.

        Raises:
            UserError: if there is none of that step, or a file of it holds something else than tensors.
        """
        kinds = KINDS[:1] if weights_only else KINDS
        files, state = run.read_checkpoint(step, kinds)
        rows: dict[str, dict[str, _Rows]] = {kind: {} for kind in KINDS}
        for name, data in files:
            try:
                tensors = safetensors.torch.load(data)
            except safetensors.SafetensorError as error:
                file = f"{run}/checkpoints/{step}/{name}"
                raise UserError(f"{file} is damaged ({error}); delete its folder, and an older one is taken") from error
            for key, tensor in tensors.items():
                # The optimizer's state of a parameter is named `exp_avg/<parameter>` and is divided as that is.
                target = (like or {}).get(key.partition("/")[2] or key)
                rows[kind_of(name)].setdefault(key, _Rows(target)).add(tensor)
        weights, optimizer = ({key: one.joined() for key, one in rows[kind].items()} for kind in KINDS)
        return cls(step, weights, optimizer, state)


class _Rows:
    """The rows of one tensor, file by file: all of them, or those of this rank if `target` is divided."""

    def __init__(self, target: Tensor | None) -> None:
        self._target = target if is_divided(target) else None
        self._pieces: list[Tensor] = []
        self._count = 0

    def add(self, piece: Tensor) -> None:
        if not piece.dim():
            self._target = None
        if self._target is not None:
            own = own_rows(self._target)
            start, stop = (min(max(row - self._count, 0), len(piece)) for row in (own.start, own.stop))
            self._count += len(piece)
            piece = piece[start:stop].clone()
        self._pieces.append(piece)

    def joined(self) -> Tensor:
        rows = self._pieces[0] if len(self._pieces) == 1 else torch.cat(self._pieces)
        self._pieces.clear()
        return rows if self._target is None else as_divided(rows, self._target, count=self._count)


def _copies(tensors: Tensors, *, leads: bool) -> Tensors:
    own = {name: one.to_local() if is_divided(one) else one for name, one in tensors.items()}
    # One for each name: safetensors takes neither strided tensors nor two that share memory, as tied weights do.
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in own.items()
        if leads or is_divided(tensors[name])
    }
