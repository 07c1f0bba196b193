"""A run that may end early, decided after each of its evaluations."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from blitz.data.plan import Block
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint_writer import CheckpointWriter
from blitz.training.loop import TrainJob, train
from blitz.training.session import Session
from blitz.training.world import World

MetricValues = dict[str, float]

ShouldContinue = Callable[[int, MetricValues], bool]
"""Called on rank 0 with the step and the metrics of each evaluation; returns whether to continue."""


@dataclass(frozen=True, kw_only=True)
class TrialJob(TrainJob):
    """A run as one trial of many; one that ends early is a complete run of fewer steps, and can be resumed."""

    should_continue: ShouldContinue

    def start(self, blocks: Iterable[Block], session: Session) -> None:
        """Train until the end of the plan, or until `should_continue` returns False."""
        with _FollowedWriter(self.run, keep=self.checkpoints.keep, should_continue=self.should_continue) as writer:
            train(self, _until_stopped(blocks, writer, session.world), writer, session)


class _FollowedWriter(CheckpointWriter):
    """Asks after each evaluation whether to continue."""

    def __init__(self, run: RunDirectory, *, keep: int, should_continue: ShouldContinue) -> None:
        super().__init__(run, keep=keep)
        self._should_continue, self.stopped = should_continue, False

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        super().add_metrics(line)
        if metrics := evaluation_metrics(line):
            self.stopped = not self._should_continue(line["step"], metrics)


def evaluation_metrics(line: Mapping[str, Any]) -> MetricValues:
    """The metrics of an evaluation, from a line of metrics.jsonl; empty for a line of training."""
    return {name: value for name, value in line.items() if name.startswith("val/")}


def _until_stopped(blocks: Iterable[Block], writer: _FollowedWriter, world: World) -> Iterator[Block]:
    """The blocks up to the evaluation after which the trial stops: the same on every rank."""
    for block in blocks:
        yield block
        # The loop has finished the block by now, and after an evaluation's last block the evaluation.
        evaluated = block.chunk.split == "val" and block.chunk.ends_pass
        if evaluated and bool(world.sum(torch.tensor(int(writer.stopped)))):
            return
