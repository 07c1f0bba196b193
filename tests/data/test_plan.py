import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import pytest

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Plan, Shares, fetch
from blitz.randomness import MASK64

PLAN = Plan(train_rows=23, eval_rows=11, global_batch_size=5, total_steps=14, evaluate_every_steps=5, seed=3)
"""Five steps an epoch, the last of 3 rows; the run ends within its third epoch."""


def consumed(plan: Plan, world_size: int, *, first_step: int = 0, row_bytes: int = 1 << 20) -> list[list[int]]:
    """Rows of each batch in the order of consumption, evaluation passes among them."""
    shares = Shares.of(plan, world_size=world_size, row_bytes=row_bytes)
    batches = []
    for chunk in shares.chunks(first_step):
        by_rank = [shares.rows_of(chunk, rank) for rank in range(world_size)]
        for number in range(chunk.stop - chunk.start):
            part = slice(number * shares.share, (number + 1) * shares.share)
            batches.append([int(row) for rows, weights in by_rank for row in rows[part][weights[part] > 0]])
    return batches


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("row_bytes", [1, 1 << 20, 1 << 30])
def test_every_step_has_the_same_rows_at_any_world_size_and_block_size(world_size: int, row_bytes: int) -> None:
    assert consumed(PLAN, world_size, row_bytes=row_bytes) == consumed(PLAN, 1)


def test_an_epoch_takes_every_row_once_and_an_evaluation_every_row_in_order() -> None:
    batches = consumed(PLAN, 1)
    first_epoch, first_pass = batches[:5], batches[5:8]
    assert [len(batch) for batch in first_epoch] == [5, 5, 5, 5, 3]
    assert sorted(chain.from_iterable(first_epoch)) == list(range(23))
    assert list(chain.from_iterable(first_pass)) == list(range(11))
    second_epoch = batches[8:13]
    assert sorted(chain.from_iterable(second_epoch)) == list(range(23))
    assert second_epoch != first_epoch


def test_the_last_evaluation_comes_at_the_last_step_also_within_an_epoch() -> None:
    assert list(chain.from_iterable(consumed(PLAN, 1)[-3:])) == list(range(11))
    assert not PLAN.evaluates_after(13)
    assert PLAN.evaluates_after(14)


@pytest.mark.parametrize("first_step", range(15))
def test_a_run_from_any_step_is_the_rest_of_the_whole_run(first_step: int) -> None:
    passes_before = first_step // PLAN.evaluate_every_steps + (first_step == PLAN.total_steps)
    done = first_step + 3 * passes_before
    assert consumed(PLAN, 2, first_step=first_step) == consumed(PLAN, 1)[done:]


def test_a_plan_of_a_trillion_rows_and_steps_starts_anywhere_and_holds_no_list_of_either() -> None:
    trillion = 10**12
    plan = Plan(trillion, trillion, 1000, total_steps=trillion, evaluate_every_steps=trillion // 10, seed=3)
    tracemalloc.start()
    try:
        shares = Shares.of(plan, world_size=8, row_bytes=1000)
        for first_step in (0, trillion // 2, trillion - 10):
            chunks = list(islice(shares.chunks(first_step), 20))
            assert chunks[0].start == first_step
            for chunk in chunks:
                rows, weights = shares.rows_of(chunk, rank=7)
                assert 0 <= rows.min() <= rows.max() < trillion
                assert weights.reshape(-1, shares.share).sum(1)[: chunk.stop - chunk.start].tolist() == [125] * (
                    chunk.stop - chunk.start
                )
        # The arrays of one block of 4,000 rows, and those of its computation.
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_the_plan_knows_how_many_rows_of_every_batch_count(world_size: int) -> None:
    shares = Shares.of(PLAN, world_size=world_size, row_bytes=8)
    dataset = ArrayDataset(inputs=np.arange(23))
    for chunk in shares.chunks(0):
        found = sum(fetch(dataset, shares, chunk, rank).valid_rows() for rank in range(world_size))
        assert PLAN.batch_rows(chunk) == np.asarray(found)[: chunk.stop - chunk.start].tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_all_blocks_are_equally_large_and_pad_rows_repeat_their_batch(world_size: int) -> None:
    shares = Shares.of(PLAN, world_size=world_size, row_bytes=1 << 20)
    for chunk in shares.chunks(0):
        for rank in range(world_size):
            rows, weights = shares.rows_of(chunk, rank)
            assert rows.shape == weights.shape == (shares.block_batches * shares.share,)
            assert set(np.unique(weights)) <= {0.0, 1.0}
    short = next(chunk for chunk in shares.chunks(0) if chunk.stop == 5)
    last = slice((4 - short.start) * shares.share, (5 - short.start) * shares.share)
    pieces = [shares.rows_of(short, rank) for rank in range(world_size)]
    counts = Counter(int(row) for rows, _ in pieces for row in rows[last])
    real = {int(row) for rows, weights in pieces for row in rows[last][weights[last] > 0]}
    assert set(counts) == real
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_digests_add_up_over_ranks_and_tell_rows_and_steps_apart(world_size: int) -> None:
    dataset = ArrayDataset(inputs=np.arange(23))

    def digest(plan: Plan, world_size: int) -> int:
        shares = Shares.of(plan, world_size=world_size, row_bytes=8)
        train = [chunk for chunk in shares.chunks(0) if chunk.split == "train"]
        blocks = [fetch(dataset, shares, chunk, rank) for chunk in train for rank in range(world_size)]
        return sum(sum(block.digests()) for block in blocks) & MASK64

    assert digest(PLAN, world_size) == digest(PLAN, 1)
    assert digest(replace(PLAN, seed=4), 1) != digest(PLAN, 1)
    assert digest(replace(PLAN, total_steps=13), 1) != digest(PLAN, 1)


def test_a_block_holds_the_rows_that_it_says() -> None:
    dataset = ArrayDataset(inputs=np.arange(23) * 10, targets=np.arange(23) % 2)
    shares = Shares.of(PLAN, world_size=2, row_bytes=8)
    for chunk in shares.chunks(0):
        for rank in range(2):
            block = fetch(dataset, shares, chunk, rank)
            assert np.array_equal(block.columns["inputs"], block.rows * 10)
            assert np.array_equal(block.columns["targets"], block.rows % 2)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        ArrayDataset(inputs=np.arange(3), targets=np.arange(4))
