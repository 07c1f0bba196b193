"""Many trials of one architecture, trained as one stacked model in one process.

    why_not_packable(recipe, train_rows, world=world)      None, or one line
    PackJob(recipes, plan, rungs)                          fitted recipes with equal `common_part`s, one a lane
    train_pack(job, blocks, world=world, listener=listener)

A *lane* is one trial of the pack. All lanes take the same rows in the same order; each has its own `optim` and
`init_seed`. A lane is the solo run of its recipe, to rounding: dropout too, whose masks depend on `seed` alone. A
`Listener` receives each lane's lines of metrics.jsonl, and at its end ordinary checkpoints, from which `blitz train`
can resume.
"""

from blitz.training.packed.lane import Ending, LaneEnd, Listener
from blitz.training.packed.pack import PackJob, PackState, common_part, train_pack
from blitz.training.packed.packable import why_not_packable
from blitz.training.packed.rungs import Rungs

__all__ = [
    "Ending",
    "LaneEnd",
    "Listener",
    "PackJob",
    "PackState",
    "Rungs",
    "common_part",
    "train_pack",
    "why_not_packable",
]
