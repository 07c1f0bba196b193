"""A model divided over the ranks by FSDP2: each holds some rows of every parameter, gradient and optimizer state.

A tensor is divided by its first dimension, as `torch.chunk` does. In a checkpoint each rank has a file of its own rows,
and a tensor is the rows of all files in their order: any number of ranks can load it, and so can one process.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from blitz.errors import require
from blitz.recipe import Recipe
from blitz.training.world import World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """The part of a checkpoint that this rank writes: all of it, unless the model is divided."""

    rank: int = 0
    count: int = 1
    group: dist.ProcessGroup | None = None
    """Its own group, because checkpoints are written while other collective operations run."""

    @classmethod
    def of_this_rank(cls) -> "Part":
        """The part of each of several ranks; all must call this."""
        # A rank that dies closes its connections, which the others detect at once: the limit is for slow storage.
        group = dist.new_group(backend="gloo", timeout=timedelta(days=1))
        assert isinstance(group, dist.ProcessGroup)
        return cls(dist.get_rank(), dist.get_world_size(), group)

    def gather(self, mine: T) -> list[T]:
        """What each of the ranks gives, in their order."""
        if self.group is None:
            return [mine]
        every: list[Any] = [None] * self.count
        dist.all_gather_object(every, mine, group=self.group)
        return every


WHOLE = Part()
"""What a process writes whose model is not divided."""


def is_divided(tensor: Any) -> "TypeGuard[DTensor]":
    """Whether a tensor is divided over the ranks."""
    # Where one is, this is imported; it takes a second, which a process without one is spared.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a model consists of: members of a `ModuleList` or `Sequential` of which two are of one type.

    The outermost ones, and none that shares parameters with the rest of the model.
    """
    users = Counter(parameter for module in model.modules() for parameter in module._parameters.values())
    return [block for block in _candidates(model) if _has_parameters_of_its_own(block, users)]


def blocks_of(recipe: Recipe, model: nn.Module) -> Sequence[nn.Module]:
    """The blocks that the recipe names, or else those that repeat."""
    blocks = recipe.sharded_blocks(model)
    return repeated_blocks(model) if blocks is None else blocks


def _candidates(module: nn.Module) -> Iterator[nn.Module]:
    repeated: set[type[nn.Module]] = set()
    if isinstance(module, nn.ModuleList | nn.Sequential):
        members = [one for one in module.children() if any(True for _ in one.parameters())]
        counts = Counter(type(one) for one in members if type(one) not in (nn.ModuleList, nn.Sequential))
        repeated = {kind for kind, count in counts.items() if count > 1}
    for child in module.children():
        if type(child) in repeated:
            yield child
        else:
            yield from _candidates(child)


def _has_parameters_of_its_own(block: nn.Module, users: Mapping[nn.Parameter | None, int]) -> bool:
    inside = Counter(parameter for module in block.modules() for parameter in module._parameters.values())
    return all(parameter is None or users[parameter] == count for parameter, count in inside.items())


def require_shardable(recipe: Recipe, model: nn.Module) -> None:
    """Refuse a recipe whose model cannot be divided.

    Raises:
        UserError: if its settings or its parameters do not allow it.
    """
    flag = "--scale.shard full"
    require(not recipe.compile, f"{flag} does not go with --compile; leave one of them out")
    require(not recipe.channels_last, f"{flag} does not go with --channels-last; leave one of them out")
    require(
        recipe.optim.custom is None,
        f"{flag} does not go with --optim.custom: an optimizer that is not written for rows of tensors may be wrong",
    )
    for name, parameter in model.named_parameters():
        require(parameter.dim() > 0, f"{flag}: parameter {name} is one number; give it the shape (1,)")


def divide(forward: nn.Module, model: nn.Module, recipe: Recipe, world: World) -> None:
    """Divide the parameters of `model` over all ranks; `forward`, which calls the model, makes them whole when it runs.

    Every block is whole only while it computes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    require_shardable(recipe, model)
    # Weights are rounded before they are sent; gradients are added up as they are without sharding.
    precision = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if recipe.precision == "bf16" else None,
        reduce_dtype=torch.float32 if recipe.precision == "bf16" else None,
        cast_forward_inputs=False,
    )
    mesh = init_device_mesh(world.device.type, (world.size,))
    # Each is divided again after a forward pass, the outermost one too: weights are stored and averaged in rows.
    for part in [*blocks_of(recipe, model), forward]:
        fully_shard(part, mesh=mesh, mp_policy=precision, reshard_after_forward=True)


def recompute_blocks(recipe: Recipe, model: nn.Module) -> None:
    """Let the backward pass compute the activations of the model's blocks again.

    Raises:
        UserError: if there is no block, or if one has a batch norm, whose statistics would be updated twice.
    """
    blocks = blocks_of(recipe, model)
    require(
        len(blocks) > 0, "--recompute: the model has no repeated blocks; name some in `sharded_blocks`, or leave it out"
    )
    for block in blocks:
        norms = any(isinstance(one, _NormBase) and one.track_running_stats for one in block.modules())
        require(not norms, "--recompute: a block of the model has a batch norm, which would count each batch twice")
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def own_rows(target: "DTensor") -> range:
    """The rows of a divided tensor that this rank has."""
    rows, (ranks,), rank = target.shape[0], target.device_mesh.shape, target.device_mesh.get_local_rank()
    share = -(-rows // ranks)
    return range(min(rank * share, rows), min((rank + 1) * share, rows))


def as_divided(rows: Tensor, target: "DTensor", *, count: int) -> Tensor:
    """This rank's rows, of `count` in all, as a tensor that is divided like `target`."""
    from torch.distributed.tensor import DTensor

    shape = torch.Size((count, *rows.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    mesh, placements = target.device_mesh, target.placements
    return DTensor.from_local(rows.to(target.device), mesh, placements, shape=shape, stride=stride)


def take_rows(whole: Tensor, target: Tensor) -> Tensor:
    """`whole`, or this rank's rows of it if `target` is divided."""
    if not is_divided(target):
        return whole
    rows = own_rows(target)
    return as_divided(whole[rows.start : rows.stop], target, count=len(whole))
