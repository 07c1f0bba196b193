"""Rows that are found to be invalid while a run consumes them: they are left out and recorded."""

from blitz.data.plan import Block, Plan
from blitz.errors import DataError, StorageError
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.batches import valid_rows
from blitz.training.display import Display
from blitz.training.world import World

_SHOWN = 10


class BadRowLog:
    """Collects invalid rows over all ranks and writes them to bad_rows.csv of the run."""

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        run: RunDirectory,
        *,
        world: World,
        display: Display,
        must_be_written: bool = True,
    ) -> None:
        self.unwritten: StorageError | None = None
        """The error that kept bad_rows.csv from being written, if not `must_be_written`."""
        self._must_be_written = must_be_written
        self._plan, self._run, self._world, self._display = plan, run, world, display
        self._fraction, self._rows = recipe.max_bad_fraction, plan.train_rows + plan.eval_rows
        self._known = set(run.bad_rows())
        self._found: set[str] = set()

    def note(self, block: Block) -> list[int]:
        """Record a block's faults; must be called on every rank, for its block of the same chunk.

        Returns:
            `valid_rows` of the block.

        Raises:
            DataError: on every rank, once there are more than the recipe allows.
        """
        valid = valid_rows(block, self._plan, self._world)
        if valid != self._plan.batch_rows(block.chunk):
            self._record(block.new_faults())
        return valid

    def _record(self, found: list[str]) -> None:
        # Those of earlier epochs are not sent again.
        unsent = [fault for fault in found if fault not in self._known and fault not in self._found]
        new = sorted(set(self._world.gather(unsent)) - self._known - self._found)
        for fault in new[: max(0, _SHOWN - len(self._found))]:
            self._display.line(f"left out: {fault}")
        self._found.update(new)
        if new and self._world.leads:
            self._write(new)
        if len(self._found) > self._fraction * self._rows:
            raise DataError(
                f"{len(self._found)} of {self._rows} rows turned out to be invalid, more than "
                f"--data.max-bad-fraction {self._fraction:g} allows; they are listed in {self._run}/bad_rows.csv, "
                f"the first is {new[0]}"
            )

    def _write(self, faults: list[str]) -> None:
        try:
            self._run.add_bad_rows(faults)
        except StorageError as error:
            if self._must_be_written:
                raise
            self.unwritten = error
