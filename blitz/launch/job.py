"""What can be run in this process or on Ray: training a run, or evaluating one of its checkpoints."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from blitz.data.arrays import MapStyleDataset
from blitz.data.plan import Block, Plan, Split
from blitz.training.display import Display
from blitz.training.run_directory import RunDirectory
from blitz.training.world import World

Datasets = Mapping[Split, MapStyleDataset]


class Job(Protocol):
    """`TrainJob` and `EvaluateJob`."""

    @property
    def plan(self) -> Plan:
        """The order of the data."""

    @property
    def run(self) -> RunDirectory:
        """The run that it belongs to."""

    def start(self, blocks: Iterable[Block], *, world: World, first_step: int, display: Display) -> None:
        """Do it, on this rank's blocks from `first_step` on."""


def row_bytes_of(datasets: Datasets) -> int:
    """Bytes that a fetched row takes."""
    a_row = next(iter(datasets.values())).__getitems__(np.arange(1))
    return sum(column.nbytes for column in a_row.values())
