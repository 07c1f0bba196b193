"""A recipe's model on a device, and one forward pass, as training and evaluation share them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from blitz.errors import RunFailed, UserError
from blitz.recipe import Batch, Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from blitz.training.deferred import CannotDefer, Recording, named_tensors
from blitz.training.initial_weights import load_initial
from blitz.training.sharding import divide, recompute_blocks, take_rows
from blitz.training.world import World


def build_model(recipe: Recipe, world: World) -> nn.Module:
    """The recipe's model on the device, with the initial weights that its `init_seed` gives, or else its `seed`.

    Raises:
        UserError: if batch norm is to be synchronised where torch cannot.
    """
    _seed(recipe)
    return _adapted(recipe.build_model().to(world.device), recipe, world)


def _seed(recipe: Recipe) -> None:
    torch.manual_seed(recipe.seed if recipe.init_seed is None else recipe.init_seed)


def _adapted(model: nn.Module, recipe: Recipe, world: World) -> nn.Module:
    """The model in the memory format and with the batch norms that the recipe asks for."""
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.sync_batch_norm and world.size > 1:
        if world.device.type != "cuda":
            raise UserError("--sync-batch-norm needs GPUs: torch has no synchronised batch norm for CPUs")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def checkpoint_model(recipe: Recipe, run: RunDirectory, step: int) -> nn.Module:
    """The model of a checkpoint, on the CPU and in evaluation mode.

    Raises:
        UserError: if the weights are those of another model.
    """
    model = build_model(recipe, World(rank=0, size=1, device=torch.device("cpu"))).eval()
    Checkpoint.load(run, step, weights_only=True).give_weights(model, run)
    return model


class Forward(nn.Module):
    """A recipe's forward pass as a module, so that DistributedDataParallel and torch.compile wrap all of it.

    DistributedDataParallel averages the gradients only of a module that it calls, and nothing calls a `ModuleDict`.
    """

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model

    def forward(self, batch: Batch, **choices: Any) -> Any:
        """The model's outputs for a batch."""
        return self.recipe.forward(self.model, batch, **choices)


def build_forward(recipe: Recipe, world: World, run: RunDirectory | None = None) -> Forward:
    """The forward pass of the recipe's model, with the initial weights of `run` if one is given.

    Raises:
        UserError: if the model cannot be built or divided as the settings say.
    """
    module = _built_in_parts(recipe, world) if world.sharded else None
    if module is None:
        module = _forward_of(recipe, build_model(recipe, world))
        if world.sharded:
            divide(module, module.model, recipe, world)
    if run is not None:
        load_initial(recipe, module.model, run)
    return module


def _forward_of(recipe: Recipe, model: nn.Module) -> Forward:
    if recipe.recompute:
        recompute_blocks(recipe, model)
    return Forward(recipe, model)


def _built_in_parts(recipe: Recipe, world: World) -> Forward | None:
    """The forward pass of a divided model of which no rank ever holds more than its rows and one tensor.

    None if its constructor does not allow that.
    """
    recording = Recording()
    _seed(recipe)
    try:
        with recording.here():
            model = recipe.build_model()
    except CannotDefer:
        return None
    before = named_tensors(model)
    known = {name: tensor for name, tensor in before.items() if not tensor.is_meta}
    deferred = {name: tensor for name, tensor in before.items() if tensor.is_meta}
    module = _forward_of(recipe, _adapted(model.to("meta"), recipe, world))
    divide(module, module.model, recipe, world)
    module.to_empty(device=world.device)
    targets = named_tensors(module.model)
    with torch.no_grad():
        for name, value in chain(known.items(), recording.values(deferred)):
            targets[name].copy_(take_rows(value, targets[name]))
    return module


def forward(module: Forward, batch: Batch, device: torch.device) -> Any:
    """Outputs, under the recipe's precision."""
    with _precision(module.recipe, device):
        return module(batch)


@contextmanager
def oom_hint(rows: int) -> Iterator[None]:
    """Explain what to do if memory runs out in a pass over `rows` rows.

    Raises:
        RunFailed: if it does.
    """
    try:
        yield
    except RuntimeError as error:
        # On a CPU torch raises a plain RuntimeError.
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        reason = str(error).split(". ")[0]
        raise RunFailed(
            f"out of memory in a pass over {rows} rows ({reason}); add --micro-batch-size {max(1, rows // 2)}, which "
            "changes nothing that is learned, or take a smaller model"
        ) from error


@contextmanager
def batch_norm_explained(recipe: Recipe, *, share: int, world_size: int) -> Iterator[None]:
    """Explain what to do if a batch norm gets a single value per channel, in passes over a share of `share` rows.

    Raises:
        UserError: if it does, which happens in the first step if ever.
    """
    try:
        yield
    except ValueError as error:
        # torch has no exception type for it.
        if "more than 1 value per channel" not in str(error):
            raise
        if share > 1:
            passes = f"--micro-batch-size {recipe.micro_batch_size} makes a pass of 1 row of each {share}"
            size = next(size for size in range(2, share + 1) if share % size != 1)
            mend = f"give --micro-batch-size {size}, or another that leaves no remainder of 1"
        else:
            passes = f"--global-batch-size {recipe.global_batch_size} is 1 row for each worker"
            mend = f"give --global-batch-size {2 * world_size} or more, or fewer workers"
        raise UserError(f"{passes}, and this model's batch norm needs at least 2 rows; {mend}") from error


def _precision(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    return nullcontext() if recipe.precision == "fp32" else torch.autocast(device.type, torch.bfloat16)


def forward_and_loss(
    recipe: Recipe,
    forward_pass: Callable[..., Any],
    batch: Batch,
    device: torch.device,
    choices: Mapping[str, Any] | None = None,
) -> tuple[Any, Tensor]:
    """Outputs of a forward pass and losses of shape (batch,), under the recipe's precision.

    The losses are fp32, or float64 where the model computes in float64.

    `choices` are those of a training step.

    Raises:
        UserError: if the recipe's loss is not one number a row.
    """
    rows = len(next(iter(batch.values())))
    with _precision(recipe, device):
        outputs = forward_pass(batch, **(choices or {}))
        losses = recipe.loss(outputs, batch)
    if losses.shape != (rows,):
        raise UserError(
            f"recipe {recipe.name}: loss() gave a tensor of shape {tuple(losses.shape)} for {rows} rows; "
            "it must be one number a row: use reduction='none', and take the mean over other dimensions"
        )
    return outputs, losses if losses.dtype == torch.float64 else losses.float()
