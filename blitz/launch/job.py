"""What can be run in this process or on Ray: training a run, or evaluating one of its checkpoints."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from blitz.data.arrays import FAULT, MapStyleDataset
from blitz.data.plan import Block, Datasets, Plan, Split
from blitz.errors import DataError
from blitz.recipe import Recipe
from blitz.runs.directory import RunDirectory
from blitz.training.checkpoint_triggers import NoticeBoard
from blitz.training.display import Display
from blitz.training.world import World


class Job(Protocol):
    """`TrainJob` and `EvaluateJob`."""

    @property
    def plan(self) -> Plan:
        """The order of the data."""

    @property
    def recipe(self) -> Recipe:
        """What it is done with."""

    @property
    def run(self) -> RunDirectory:
        """The run that it belongs to, which every rank reads or writes."""

    def first_step(self) -> int:
        """The step to begin or to go on with, as files say at this moment."""

    def start(
        self, blocks: Iterable[Block], *, world: World, first_step: int, display: Display, board: NoticeBoard = ...
    ) -> None:
        """Do it, on this rank's blocks from `first_step` on; what can be saved at any step looks at `board`."""


def row_bytes_of(datasets: Datasets) -> int:
    """Bytes that a fetched row takes, from a look at the first one of each data set.

    Raises:
        DataError: if a data set gives something else than columns of numbers.
    """
    return max(_row_bytes(split, dataset) for split, dataset in datasets.items())


def _row_bytes(split: Split, dataset: MapStyleDataset) -> int:
    if not len(dataset):
        return 0
    columns = {name: one for name, one in dataset.__getitems__(np.arange(1)).items() if name != FAULT}
    for name, column in columns.items():
        is_array = isinstance(column, np.ndarray)
        if not is_array or column.dtype.kind not in "biuf" or len(column) != 1:
            raise DataError(
                f"column '{name}' of the rows to {'train on' if split == 'train' else 'evaluate on'} is "
                f"{column.dtype if is_array else type(column).__name__} for one row; __getitems__ must give numpy "
                "arrays of numbers whose first dimension is the rows"
            )
    return sum(column.nbytes for column in columns.values())
