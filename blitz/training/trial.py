"""A run of which somebody follows the figures, and that may be ended early."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from blitz.data.plan import Block
from blitz.runs.directory import RunDirectory
from blitz.training.checkpoint_triggers import NoticeBoard, nothing_told
from blitz.training.checkpoint_writer import CheckpointWriter
from blitz.training.display import Display
from blitz.training.loop import TrainJob, train
from blitz.training.world import World

Figures = dict[str, float]

GoesOn = Callable[[int, Figures], bool]
"""Told on rank 0 the step and the figures of each evaluation: whether to go on."""


@dataclass(frozen=True, kw_only=True)
class TrialJob(TrainJob):
    """A run as one trial of many: ended early it is a whole run of fewer steps, which the same command would go on."""

    goes_on: GoesOn

    def start(
        self,
        blocks: Iterable[Block],
        *,
        world: World,
        first_step: int,
        display: Display,
        board: NoticeBoard = nothing_told,
    ) -> None:
        """Train until the end of the plan, or until `goes_on` says no."""
        with _Follower(self.run, keep=self.checkpoints.keep, goes_on=self.goes_on) as writer:
            trial = _until(blocks, writer, world)
            train(self, trial, writer, world=world, first_step=first_step, display=display, board=board)


class _Follower(CheckpointWriter):
    """Tells what it writes of evaluations."""

    def __init__(self, run: RunDirectory, *, keep: int, goes_on: GoesOn) -> None:
        super().__init__(run, keep=keep)
        self._goes_on, self.ended = goes_on, False

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        super().add_metrics(line)
        if figures := figures_of(line):
            self.ended = not self._goes_on(line["step"], figures)


def figures_of(line: Mapping[str, Any]) -> Figures:
    """The figures of an evaluation, from a line of metrics.jsonl; empty of a line of training."""
    return {name: value for name, value in line.items() if name.startswith("val/")}


def _until(blocks: Iterable[Block], writer: _Follower, world: World) -> Iterator[Block]:
    """The blocks up to the evaluation after which the trial is to end: the same on every rank."""
    for block in blocks:
        yield block
        # By now the loop is done with the block, and after its last one with the evaluation.
        evaluated = block.chunk.split == "val" and block.chunk.ends_pass
        if evaluated and bool(world.sum(torch.tensor(int(writer.ended)))):
            return
