"""Batch inference: every rank writes its predictions block by block, so that a killed run resumes where it was."""

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow
import torch

from blitz.data.plan import Block, Chunk, Plan
from blitz.errors import UserError
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json
from blitz.run_files.directory import RunDirectory
from blitz.run_files.folder import Directory
from blitz.storage import fingerprint, joined
from blitz.training.batches import laid_out, on_device
from blitz.training.checkpoint import Checkpoint
from blitz.training.evaluation import ROWS_A_FORWARD, join_passes
from blitz.training.held_out_errors import Intervals
from blitz.training.model import Forward, build_forward, forward
from blitz.training.session import Session
from blitz.training.world import World

ROW, ERROR = "_row", "_error"
MARKS = [ROW, ERROR]
"""Columns of a part beside the predictions: the row number, and for an invalid row its record of bad_rows.csv."""

_PART = re.compile(r"(\d+)-(\d+)\.(\d+)of(\d+)\.arrow")


@dataclass(frozen=True)
class PredictJob:
    """Predictions of one checkpoint for the rows of a plan, ready to be launched.

    `parts` is a folder of Arrow files, `<first batch>-<end>.<rank>of<ranks>.arrow`: a rank's predictions for its share
    of some batches. The predictions do not depend on the number of ranks.
    """

    recipe: Recipe
    plan: Plan
    run: RunDirectory
    step: int
    parts: Directory
    intervals: Intervals | None = None

    def first_step(self) -> int:
        """The first batch that is not predicted yet."""
        return max((stop for stop, _ in self._whole()), default=0)

    def with_own_parts(self, content: str) -> "PredictJob":
        """This job with a folder of parts of its own; `content` is a hash of the rows."""
        own = joined(self.parts.uri, fingerprint(json.dumps(self._identity(content))))
        return replace(self, parts=replace(self.parts, uri=own))

    def resume(self, content: str) -> int:
        """Keep existing parts if they are of the same job, else delete them; returns the number of rows done."""
        identity = self._identity(content)
        if self.parts.read_json("job.json") != identity:
            self.parts.delete()
            self.parts.write_json("job.json", identity)
        return min(self.first_step() * self.plan.global_batch_size, self.plan.eval_rows)

    def _identity(self, content: str) -> dict[str, Any]:
        """Everything that the predictions depend on."""
        identity = {
            "weights": self.run.weights_digest(self.step),
            "recipe": recipe_to_json(self.recipe),
            "csv": content,
            **({"intervals": self.intervals.fingerprint} if self.intervals else {}),
        }
        return dict(json.loads(json.dumps(identity)))

    def start(self, blocks: Iterable[Block], session: Session) -> None:
        """Predict."""
        world = session.world
        module = build_forward(self.recipe, world)
        model = module.model
        Checkpoint.load(self.run, self.step, model.state_dict(), weights_only=True).give_weights(model, self.run)
        model.eval()
        for block in blocks:
            name = _name(block.chunk, rank=world.rank, ranks=world.size)
            self.parts.write(name, _to_bytes(self._predict(module, block, world)))
            session.display.step(block.chunk.stop)

    @torch.no_grad()
    def _predict(self, module: Forward, block: Block, world: World) -> pyarrow.Table:
        faults = np.full(len(block.rows), "") if block.faults is None else block.faults
        taken = np.flatnonzero((block.weights > 0) | (faults != ""))
        # A block that is all padding still defines the columns.
        shown = taken if len(taken) else np.arange(1)
        columns = {name: column[shown] for name, column in block.columns.items()}
        batch = laid_out(self.recipe, self.recipe.preprocess(on_device(columns, world.device)))
        size = self.recipe.micro_batch_size or ROWS_A_FORWARD
        found: dict[str, list[Any]] = {}
        starts = range(0, len(shown), size)
        for start in starts:
            part = {name: column[start : start + size] for name, column in batch.items()}
            outputs = forward(module, part, world.device)
            columns_of = self.recipe.predictions(outputs, part)
            if self.intervals is not None:
                columns_of |= self.intervals.columns(self.recipe, module.model, outputs, part)
            for name, values in columns_of.items():
                found.setdefault(name, []).extend(values)
        join_passes(module, batch, world, done=len(starts), share=len(block.weights))
        table = pyarrow.table({**found, ROW: block.rows[shown], ERROR: faults[shown].tolist()})
        return table.slice(0, len(taken))

    def _whole(self) -> Iterator[tuple[int, list[str]]]:
        """The last batch, exclusive, and the parts of each chunk that is there, up to the first gap."""
        ranks: dict[tuple[int, int, int], dict[int, str]] = {}
        for name in self.parts.names():
            if match := _PART.fullmatch(name):
                first, stop, rank, count = map(int, match.groups())
                ranks.setdefault((first, stop, count), {})[rank] = name
        whole = {key[0]: (key[1], list(names.values())) for key, names in sorted(ranks.items()) if len(names) == key[2]}
        first = 0
        while first in whole:
            stop, names = whole[first]
            yield stop, names
            first = stop

    def predictions(self) -> Iterator[pyarrow.Table]:
        """The predictions in the order of the rows, each once.

        Raises:
            UserError: if a part is missing, which only another process can have deleted.
        """
        done = 0
        for stop, names in self._whole():
            try:
                tables = [pyarrow.ipc.open_file(self.parts.read(name)).read_all() for name in names]
            except FileNotFoundError:
                break
            table = pyarrow.concat_tables(tables)
            # An invalid row occurs again wherever it served as padding.
            _, first = np.unique(table[ROW].to_numpy(), return_index=True)
            yield table.take(first)
            done = stop
        if done != self.plan.eval_batches:
            raise UserError(f"{self.parts} lacks predictions: another process has written the same file; predict again")


def _name(chunk: Chunk, *, rank: int, ranks: int) -> str:
    return f"{chunk.start}-{chunk.stop}.{rank}of{ranks}.arrow"


def _to_bytes(table: pyarrow.Table) -> bytes:
    stream = io.BytesIO()
    with pyarrow.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()
