"""Whether a recipe's trials can be packed, decided by taking a step on a few of its rows."""

from dataclasses import replace

import torch
from torch import nn

from blitz.data.arrays import MapStyleDataset
from blitz.data.plan import Chunk, Shares, fetch
from blitz.errors import first_line
from blitz.recipe import Recipe
from blitz.training.batches import StepBatch, step_batches
from blitz.training.model import Forward, build_model, forward_and_loss
from blitz.training.packed.optimizers import why_not_stacked
from blitz.training.packed.stack import Stack
from blitz.training.world import World

_ROWS = 4
_TOLERANCE = 1e-3
"""Between gradients in fp32, relative to their norm."""


def why_not_packable(recipe: Recipe, train_rows: MapStyleDataset, *, world: World) -> str | None:
    """Why trials of a fitted recipe cannot be trained as one stack, in a line; None if they can.

    A few rows go through a step of the model and of a stack of two, in training and in evaluation.
    """
    if recipe.compile:
        return "--compile compiles one model, not a stack"
    if recipe.on_nan == "skip":
        return "--on-nan skip leaves out steps of one trial and not of the others"
    if recipe.precision == "bf16":
        return "--precision bf16 has no effect on the convolutions of a stack"
    if recipe.find_unused_parameters:
        return "a step may leave weights out, as --find-unused-parameters says, and optimizers then skip them"
    if recipe.recompute:
        return "--recompute is for the blocks of one model, not of a stack"
    if recipe.ema is not None:
        return "--ema averages the weights of one model, not of a stack"
    if recipe.swa.from_epoch is not None:
        return "--swa averages the weights of one model, not of a stack"
    if reason := why_not_stacked(recipe.optim):
        return reason
    if recipe.uses_other_weights:
        return "each trial is initialised from other weights"
    if type(recipe).parameter_groups is not Recipe.parameter_groups:
        return "it learns its parameters in groups of its own"
    if type(recipe).after_evaluation is not Recipe.after_evaluation:
        return "its after_evaluation is called with one model, not a stack"
    batch = _some_rows(recipe, train_rows, world)
    model = build_model(recipe, world)
    if reason := _why_not_alone(recipe, model, batch, world):
        return reason
    try:
        stack = Stack([recipe, recipe], world)
        return _why_not_equal(recipe, model, stack, batch, world)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = first_line(error).split(". ")[0]
        return f"a stack of its models cannot take a step: {reason}"


def _some_rows(recipe: Recipe, train_rows: MapStyleDataset, world: World) -> StepBatch:
    # Without rows to evaluate on, which patience would need.
    plan = replace(recipe, patience=None).plan(len(train_rows), 0)
    plan = replace(plan, global_batch_size=_ROWS, total_steps=1, evaluate_every_steps=1)
    block = fetch(train_rows, Shares(plan, world_size=1, block_batches=1), Chunk("train", 0, 1), rank=0)
    return next(step_batches(block, plan, world))


def _why_not_alone(recipe: Recipe, model: nn.Module, batch: StepBatch, world: World) -> str | None:
    """Take a solo step, which leaves the model with its gradients; why it cannot be packed, if so."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    world.seed_generators(recipe.seed)
    micro_batches, choices = list(batch.micro_batches(recipe)), recipe.choices(batch.step_draws)
    for columns, weights in micro_batches:
        _, losses = forward_and_loss(recipe, Forward(recipe, model), columns, world.device, choices)
        torch.dot(losses, weights.to(losses.dtype)).backward()
    changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    if changed:
        return f"its model changes {changed[0]} while it trains, as batch norm does"
    unused = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    return f"its loss does not depend on {unused[0]}" if unused else None


def _why_not_equal(recipe: Recipe, model: nn.Module, stack: Stack, batch: StepBatch, world: World) -> str | None:
    """Whether the stack's gradients are those of the model, and whether it can be evaluated."""
    world.seed_generators(recipe.seed)
    micro_batches, choices = list(batch.micro_batches(recipe)), recipe.choices(batch.step_draws)
    for columns, weights in micro_batches:
        stack.backward(columns, weights, choices)
    stacked = stack.weights.grad
    assert stacked is not None
    alone = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
    difference = (stacked - alone).norm(dim=1).max()
    if not difference <= _TOLERANCE * alone.norm():
        return "the gradients of a stack of its models are not those of the models"
    stack.model.eval()
    with torch.no_grad():
        stack.outputs(micro_batches[0][0])
    return None
