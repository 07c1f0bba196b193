"""Which rows are consumed in which step: a pure function of the plan, whatever the number of workers.

A run is one sequence of *chunks*: some training steps, a pass over the evaluation rows where one is due, more steps,
and so on to the end. `rows_of` says which rows of a chunk a rank takes. In this process and on Ray the same chunks are
fetched and consumed in the same order, so a run can start at any step on any number of workers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from blitz.data.arrays import FAULT, Columns, EpochDataset, MapStyleDataset, SampledDataset
from blitz.data.order import Rows, shuffled_rows
from blitz.data.sampling import drawn
from blitz.randomness import Use, key_for, keys_for, mix64

Split = Literal["train", "val", "test"]
"""A run trains on `train` and is evaluated on `val`; some recipes have a `test` that it never sees."""
Datasets = Mapping[Split, MapStyleDataset]
Weights = npt.NDArray[np.float32]

# Enough rows that fetching them as one costs little a row, few enough that the first batch does not wait.
_BLOCK_BYTES = 4 << 20
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Plan:
    """Everything that decides the order of the data, and nothing about where it is consumed.

    `train_rows` and `eval_rows` are the sizes of the two data sets; a `batch` is the global batch, over all workers.
    The last batch of an epoch may be short. Evaluation takes its rows in their own order, in batches of the same size.
    """

    train_rows: int
    eval_rows: int
    global_batch_size: int
    total_steps: int
    evaluate_every_steps: int
    seed: int
    class_rows: tuple[int, ...] = ()
    """Where an epoch samples rows by class, how many rows of each class there are, and how many an epoch takes."""
    class_draws: tuple[int, ...] = ()
    rows_together: int = 1
    """So many rows in a row of each batch lie in one rank's share."""

    @classmethod
    def of_evaluation(cls, *, rows: int, batch_size: int) -> "Plan":
        """A plan without training steps, of one evaluation pass."""
        return cls(0, rows, batch_size, total_steps=0, evaluate_every_steps=1, seed=0)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training rows."""
        return -(-self.train_rows // self.global_batch_size)

    @property
    def eval_batches(self) -> int:
        """Batches in one pass over the evaluation rows."""
        return -(-self.eval_rows // self.global_batch_size)

    def share(self, world_size: int) -> int:
        """Rows of every batch that each of `world_size` ranks takes, pad rows included."""
        largest_batch = min(self.global_batch_size, max(self.train_rows, self.eval_rows))
        if world_size <= 1:
            return largest_batch
        return -(-largest_batch // (world_size * self.rows_together)) * self.rows_together

    def batch_rows(self, chunk: "Chunk") -> list[int]:
        """Rows of each global batch of a chunk."""
        train = chunk.split == "train"
        split_rows, batches = (self.train_rows, self.steps_per_epoch) if train else (self.eval_rows, self.eval_batches)
        size = self.global_batch_size
        return [min(size, split_rows - batch % batches * size) for batch in range(chunk.start, chunk.stop)]

    def evaluates_after(self, steps: int) -> bool:
        """Whether the model is evaluated once it has taken `steps` steps."""
        return self.eval_rows > 0 and (steps == self.total_steps or steps % self.evaluate_every_steps == 0)


@dataclass(frozen=True)
class Chunk:
    """Batches `start` to `stop` (exclusive) of a split: training steps, or batches of one evaluation pass."""

    split: Split
    start: int
    stop: int
    ends_pass: bool = False
    """Whether this is the last chunk of an evaluation pass."""


@dataclass(frozen=True)
class Shares:
    """How a plan is cut for `world_size` ranks: `share` rows of every batch a rank, `block_batches` batches a block.

    All blocks of a run hold equally many rows on every rank; pad rows of weight 0 make them so.
    """

    plan: Plan
    world_size: int
    block_batches: int

    @classmethod
    def of(cls, plan: Plan, *, world_size: int, row_bytes: int) -> "Shares":
        """Shares whose blocks hold some megabytes, where a row takes `row_bytes`."""
        rows = min(_BLOCK_ROWS, _BLOCK_BYTES // max(1, row_bytes))
        longest = max(min(plan.evaluate_every_steps, plan.total_steps), plan.eval_batches)
        return cls(plan, world_size, max(1, min(rows // plan.share(world_size), longest)))

    @property
    def share(self) -> int:
        """Rows of every batch that one rank takes, pad rows included."""
        return self.plan.share(self.world_size)

    def chunks(self, first_step: int) -> Iterator[Chunk]:
        """The run from `first_step` on. A plan without steps is one evaluation pass, from that batch on."""
        plan, step = self.plan, first_step
        if plan.total_steps == 0:
            yield from self._cut("val", first_step, plan.eval_batches)
        while step < plan.total_steps:
            stop = min(plan.total_steps, (step // plan.evaluate_every_steps + 1) * plan.evaluate_every_steps)
            yield from self._cut("train", step, stop)
            step = stop
            if plan.evaluates_after(step):
                yield from self._cut("val", 0, plan.eval_batches)

    def _cut(self, split: Split, start: int, stop: int) -> Iterator[Chunk]:
        for first in range(start, stop, self.block_batches):
            last = min(stop, first + self.block_batches)
            yield Chunk(split, first, last, ends_pass=split == "val" and last == stop)

    def rows_of(self, chunk: Chunk, rank: int) -> tuple[Rows, Weights]:
        """Rows that `rank` takes of a chunk and their weights, both of shape (block_batches * share,).

        Each batch is cut into contiguous shares. A pad row has weight 0 and repeats a row of its batch, in turn, so
        that batch statistics see no other data. Where classes are sampled, a training row is its index among the rows
        in the order of their classes.
        """
        plan = self.plan
        split_rows = plan.train_rows if chunk.split == "train" else plan.eval_rows
        batches_a_pass = plan.steps_per_epoch if chunk.split == "train" else plan.eval_batches
        batch = chunk.start + np.arange(self.block_batches, dtype=np.int64)[:, None]
        epoch, first_row = batch // batches_a_pass, batch % batches_a_pass * plan.global_batch_size
        batch_rows = np.minimum(plan.global_batch_size, split_rows - first_row)
        in_batch = rank * self.share + np.arange(self.share, dtype=np.int64)[None, :]
        weights = (in_batch < batch_rows) & (batch < chunk.stop)
        positions = (first_row + in_batch % batch_rows).ravel()
        if chunk.split == "val":
            return positions, weights.ravel().astype(np.float32)
        epochs = np.broadcast_to(epoch, weights.shape).ravel()
        keys = keys_for(key_for(Use.ORDER, plan.seed), epochs.astype(np.uint64))
        rows = shuffled_rows(positions, num_rows=split_rows, keys=keys)
        if plan.class_draws:
            rows = drawn(rows, epochs, class_rows=plan.class_rows, class_draws=plan.class_draws, seed=plan.seed)
        return rows, weights.ravel().astype(np.float32)

    def epochs_of(self, chunk: Chunk) -> Rows:
        """The epoch of each row that a rank takes of a chunk, of shape (block_batches * share,); 0 in evaluation."""
        batches = chunk.start + np.repeat(np.arange(self.block_batches, dtype=np.int64), self.share)
        return batches // self.plan.steps_per_epoch if chunk.split == "train" else np.zeros_like(batches)


@dataclass(frozen=True)
class Block:
    """The rows of one chunk for one rank: every array of shape (block_batches * share, …)."""

    chunk: Chunk
    share: int
    rows: Rows
    weights: Weights
    columns: Columns
    faults: npt.NDArray[np.str_] | None = None
    """Of shape (block_batches * share,): why a row is invalid, or empty; None if no row can be."""

    def new_faults(self) -> list[str]:
        """Lines of bad_rows.csv for the invalid rows."""
        return [] if self.faults is None else sorted(set(self.faults[self.faults != ""].tolist()))

    def valid_rows(self) -> Rows:
        """The number of this rank's rows of each batch that count, of shape (block_batches,)."""
        counts: Rows = np.count_nonzero(self.weights.reshape(-1, self.share), axis=1).astype(np.int64)
        return counts

    def digests(self) -> list[int]:
        """For each batch the sum modulo 2^64 of a hash of every (step, row) that counts."""
        steps = np.uint64(self.chunk.start) + np.arange(len(self.rows) // self.share, dtype=np.uint64)
        hashes = mix64(mix64(np.repeat(steps, self.share)) ^ self.rows.astype(np.uint64))
        counted = np.where(self.weights > 0, hashes, np.uint64(0))
        return [int(total) for total in counted.reshape(-1, self.share).sum(1)]


def _columns_of(dataset: MapStyleDataset, shares: Shares, chunk: Chunk, rows: Rows) -> Columns:
    if isinstance(dataset, EpochDataset):
        return dataset.rows_at(rows, shares.epochs_of(chunk))
    return dataset.__getitems__(rows)


def fetch(dataset: MapStyleDataset, shares: Shares, chunk: Chunk, rank: int) -> Block:
    """Fetch the rows of a chunk for a rank; a row that is only repeated as padding is fetched once.

    A row that turns out to be invalid becomes padding: its weight is 0, and another row is substituted for it.
    """
    rows, weights = shares.rows_of(chunk, rank)
    samples = chunk.split == "train" and bool(shares.plan.class_draws)
    if samples:
        rows = cast(SampledDataset, dataset).rows_in_class_order[rows].astype(np.int64)
    # All rows, or the distinct ones and the index of each row among them.
    as_they_are = (weights.all() and not samples) or isinstance(dataset, EpochDataset)
    distinct, indices = (rows, slice(None)) if as_they_are else np.unique(rows, return_inverse=True)
    columns = dict(_columns_of(dataset, shares, chunk, distinct))
    faults = columns.pop(FAULT, None)
    if faults is not None:
        invalid = faults != ""
        weights = np.where(invalid[indices], np.float32(0), weights)
        if invalid.any() and not invalid.all():
            # A valid row instead, so that batch statistics see no other data.
            substitutes = np.where(invalid, np.flatnonzero(~invalid)[0], np.arange(len(invalid)))
            columns = {name: column[substitutes] for name, column in columns.items()}
        faults = faults[indices]
    return Block(chunk, shares.share, rows, weights, {name: one[indices] for name, one in columns.items()}, faults)
