"""What can be run in this process or on Ray: training a run, or evaluating one of its checkpoints."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from blitz.data.arrays import MapStyleDataset
from blitz.data.plan import Block, Plan, Shares, Split
from blitz.training.display import Display
from blitz.training.world import World

Datasets = Mapping[Split, MapStyleDataset]


class Job(Protocol):
    """`TrainJob` and `EvaluateJob`."""

    @property
    def plan(self) -> Plan:
        """The order of the data."""

    def first_step(self) -> int:
        """The step to begin with; asked again when workers start anew."""

    def start(self, blocks: Iterable[Block], *, world: World, first_step: int, display: Display) -> None:
        """Do it, on this rank's blocks from `first_step` on."""


def shares_for(job: Job, datasets: Datasets, world_size: int) -> Shares:
    """How the job's data is cut, with blocks that suit the size of its rows."""
    a_row = next(iter(datasets.values())).__getitems__(np.arange(1))
    return Shares.of(job.plan, world_size=world_size, row_bytes=sum(column.nbytes for column in a_row.values()))
