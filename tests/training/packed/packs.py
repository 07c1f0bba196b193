"""Training a pack in tests, and recording what it reports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from blitz.data.plan import Block, Datasets, Shares, fetch
from blitz.launch.job import row_bytes_of
from blitz.recipe import Recipe
from blitz.training.packed import LaneEnd, PackJob, Rungs, train_pack
from blitz.training.world import World

HERE = World(rank=0, size=1, device=torch.device("cpu"))


@dataclass
class Heard:
    """What a pack reports, by lane."""

    lines: dict[int, list[Mapping[str, float]]] = field(default_factory=dict)
    ends: dict[int, LaneEnd] = field(default_factory=dict)
    lane_steps: int = 0

    def step(self, number: int, lanes: int) -> None:
        self.lane_steps += lanes

    def line(self, lane: int, values: Mapping[str, float]) -> None:
        assert lane not in self.ends
        self.lines.setdefault(lane, []).append(values)

    def lane_ended(self, lane: int, end: LaneEnd) -> None:
        assert lane not in self.ends
        self.ends[lane] = end

    def losses(self, lane: int) -> list[float]:
        return [line["train/loss"] for line in self.lines[lane] if "train/loss" in line]


def train_packed(recipes: Sequence[Recipe], rungs: Rungs | None = None) -> Heard:
    recipe = recipes[0]
    datasets: Datasets = {"train": recipe.dataset("train"), "val": recipe.dataset("val")}
    plan = recipe.plan(len(datasets["train"]), len(datasets["val"]))
    shares = Shares.of(plan, world_size=1, row_bytes=row_bytes_of(datasets))

    def blocks() -> Iterator[Block]:
        for chunk in shares.chunks(0):
            yield fetch(datasets[chunk.split], shares, chunk, rank=0)

    heard = Heard()
    train_pack(PackJob(tuple(recipes), plan, rungs), blocks(), world=HERE, listener=heard)
    return heard
