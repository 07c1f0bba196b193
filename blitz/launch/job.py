"""The interface of what can run in this process or on Ray: training, evaluation, prediction, a trial."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from blitz.data.arrays import FAULT, MapStyleDataset
from blitz.data.plan import Block, Datasets, Plan, Split
from blitz.errors import DataError
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.session import Session


class Job(Protocol):
    """`TrainJob`, `TrialJob`, `EvaluateJob` and `PredictJob`."""

    @property
    def plan(self) -> Plan:
        """The order of the data."""

    @property
    def recipe(self) -> Recipe:
        """What is trained, evaluated or predicted with."""

    @property
    def run(self) -> RunDirectory:
        """The run directory, which every rank reads or writes."""

    def first_step(self) -> int:
        """The step to start or resume at, by the files that exist now."""

    def start(self, blocks: Iterable[Block], session: Session) -> None:
        """Run on this rank's blocks, which start at the session's first step."""


def row_bytes_of(datasets: Datasets) -> int:
    """Bytes that a fetched row takes, measured on the first row of each data set.

    Raises:
        DataError: if a data set returns anything but columns of numbers.
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
