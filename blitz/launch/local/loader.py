"""The blocks of a run in this process: fetched here, or by worker processes where that is faster."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import Literal

from blitz.data.plan import Block, Chunk, Datasets, Shares, fetch
from blitz.launch.local.loader_processes import AHEAD, fetched_by_processes
from blitz.training.display import Display

_TRIAL_BATCH = 64
_CLOSE = 1.03
"""Minimum speed-up that justifies another worker process."""
_UNCERTAIN = 1.25
"""Candidates within this factor of the fastest are measured again, in turns: other work on the machine adds noise."""
_TRIALS = 3
_MIN_SECONDS = 5.0
"""Fetching that takes less in all needs no workers, so nothing is measured."""
_MAX_MEMORY = 0.25
"""Fraction of this machine's memory that blocks fetched ahead may take."""
_COLUMN_BYTES = 4096
"""Room in a block to align its columns."""


@dataclass(frozen=True)
class Loader:
    """Fetches the blocks of a run."""

    datasets: Datasets
    shares: Shares
    row_bytes: int
    trial_s: float = 0.4

    def blocks(
        self, first_step: int, *, workers: Literal["auto"] | int, display: Display
    ) -> Generator[Block, None, None]:
        """The blocks from `first_step` on, in order. A block's columns are valid until the next but one."""
        if workers == "auto":
            workers, why = self.best_workers(first_step)
            display.line(f"loader workers: {workers} ({why})")
        return self.fetched(self.shares.chunks(first_step), workers)

    def fetched(self, chunks: Iterable[Chunk], workers: int) -> Generator[Block, None, None]:
        """The blocks of `chunks`, fetched by `workers` processes, which end with the generator; for 0 by this one."""
        if workers:
            yield from fetched_by_processes(self._fetch, chunks, processes=workers, block_bytes=self._block_bytes)
        else:
            yield from map(self._fetch, chunks)

    def best_workers(self, first_step: int) -> tuple[int, str]:
        """The fewest processes that fetch about as fast as any number does, and the measurements as text."""
        if next(self.shares.chunks(first_step), None) is None:
            return 0, "there is nothing to fetch"
        # In small blocks, however large the batch is, so that a trial is short.
        plan = replace(self.shares.plan, global_batch_size=min(self.shares.plan.global_batch_size, _TRIAL_BATCH))
        trials = replace(self, shares=Shares.of(plan, world_size=1, row_bytes=self.row_bytes))
        # Every trial continues where the last one stopped, because files that were read once are read faster.
        chunks = chain.from_iterable(trials.shares.chunks(first_step) for _ in count())
        here = trials.rate(chunks, 0)
        seconds = self._rows_up_to(_MIN_SECONDS * here, first_step) / here
        if seconds < _MIN_SECONDS:
            return 0, f"to fetch all rows takes this process {seconds:.1f} s"
        rates = measured(lambda workers: trials.rate(chunks, workers), self._candidates(), here=here)
        measurements = ", ".join(f"{rate:.0f} with {workers}" for workers, rate in rates.items())
        return fewest(rates), f"rows a second: {measurements}"

    def rate(self, chunks: Iterable[Chunk], workers: int) -> float:
        """Rows a second in a short trial, after the first block of every process; `chunks` must not end."""
        processes = max(1, workers)
        with closing(self.fetched(chunks, workers)) as blocks:
            for _ in islice(blocks, processes):
                pass
            started, seconds = time.perf_counter(), 0.0
            for fetched in count(1):
                next(blocks)
                seconds = time.perf_counter() - started
                # Processes that started together deliver together.
                if seconds >= self.trial_s and fetched % processes == 0:
                    return fetched * self._block_rows / seconds
        raise AssertionError

    def _rows_up_to(self, most: float, first_step: int) -> int:
        """Rows left to fetch; counting stops above `most`."""
        blocks = islice(self.shares.chunks(first_step), int(most / self._block_rows) + 1)
        return self._block_rows * sum(1 for _ in blocks)

    def _candidates(self) -> list[int]:
        """1, 2, 4 and so on, the number of CPUs, and twice that, for files that are slow to arrive."""
        cpus = len(os.sched_getaffinity(0))
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        most = min(2 * cpus, int(_MAX_MEMORY * memory / (AHEAD * self._block_bytes)) - 1)
        return sorted({n for n in (*(1 << power for power in range(16)), cpus, 2 * cpus) if n <= most})

    @property
    def _block_rows(self) -> int:
        return self.shares.share * self.shares.block_batches

    @property
    def _block_bytes(self) -> int:
        return self._block_rows * self.row_bytes + _COLUMN_BYTES

    def _fetch(self, chunk: Chunk) -> Block:
        return fetch(self.datasets[chunk.split], self.shares, chunk, rank=0)


def measured(rate: Callable[[int], float], candidates: Iterable[int], *, here: float) -> dict[int, float]:
    """Rows a second by number of processes, 0 included, up to where more were no faster twice in a row."""
    rates, slower = {0: [here]}, 0
    for workers in candidates:
        fastest = max(first for first, *_ in rates.values())
        rates[workers] = [rate(workers)]
        slower = 0 if rates[workers][0] > _CLOSE * fastest else slower + 1
        if slower == 2:
            break
    for _ in range(_TRIALS - 1):
        fastest = max(max(tried) for tried in rates.values())
        for workers, tried in rates.items():
            if max(tried) * _UNCERTAIN > fastest:
                tried.append(rate(workers))
    # The maximum, because other work on the machine can only slow a trial down.
    return {workers: max(tried) for workers, tried in rates.items()}


def fewest(rates: Mapping[int, float]) -> int:
    """The fewest processes that are about as fast as the best; `rates` are in ascending order."""
    return next(workers for workers, rate in rates.items() if rate * _CLOSE >= max(rates.values()))
