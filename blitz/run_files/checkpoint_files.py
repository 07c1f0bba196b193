"""The checkpoints of a run directory: finding those that are complete and undamaged, reading and writing them."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.fs

from blitz.errors import DamagedFile, UserError, require
from blitz.run_files.checkpoint_digests import STATE, Seal, is_sealed, seal_of, sealed, sha256_of
from blitz.run_files.checkpoint_names import KINDS, file_name, kind_of
from blitz.run_files.folder import Directory

Which = Literal["best", "last"] | int
"""A checkpoint: the best, the newest, or that of a step."""


@dataclass(frozen=True)
class CheckpointFiles(Directory):
    """The part of a run directory that handles `checkpoints/`."""

    def checkpoint_steps(self) -> list[int]:
        """Steps of all whole checkpoints, oldest first.

        Raises:
            UserError: if the storage cannot be read.
        """
        files, full = self._open("checkpoints")
        try:
            found = files.get_file_info(pyarrow.fs.FileSelector(full, allow_not_found=True))
        except OSError as error:
            raise self.refused("read", error) from error
        steps = (int(info.base_name) for info in found if info.base_name.isdecimal())
        return sorted(step for step in steps if self._checkpoint_state(step) is not None)

    def newest_step(self, most: int) -> int:
        """The step of the newest undamaged checkpoint, or 0, but at most `most`."""
        steps = (step for step in reversed(self.checkpoint_steps()) if self.damaged_file(step) is None)
        return min(most, next(steps, 0))

    def damaged_after(self, step: int) -> list[int]:
        """Steps of damaged checkpoints after `step`, from which a run resumes.

        A checkpoint that was never complete, because the run was killed while writing it, does not count.
        """
        newer = (int(name) for name in self.names("checkpoints") if name.isdecimal() and int(name) > step)
        ended = sorted(one for one in newer if self.exists(f"checkpoints/{one}/state.json"))
        return [one for one in ended if self._checkpoint_state(one) is None or self.damaged_file(one) is not None]

    def damaged_file(self, step: int) -> str | None:
        """The first file of a complete checkpoint whose bytes are not those that were written; reads all files."""
        state = self._checkpoint_state(step)
        digests: dict[str, str] = state.get("sha256", {}) if state else {}
        for name, digest in digests.items():
            if name != STATE and sha256_of(self.chunks(f"checkpoints/{step}/{name}")) != digest:
                return name
        return None

    def checkpoint_step(self, which: Which, *, report: Callable[[str], object] = lambda line: None) -> int:
        """The step of the best or the newest checkpoint that is not damaged, or `which` itself.

        `report` is called with a line for each checkpoint that is skipped.

        Raises:
            UserError: if there is no checkpoint yet, or all are damaged.
        """
        if isinstance(which, int):
            return which
        steps = self.checkpoint_steps()
        require(bool(steps), f"{self} has no checkpoint yet")
        passed: dict[int, tuple[str, str]] = {}
        for step in reversed(steps):
            state = self._checkpoint_state(step)
            best = state.get("best") if state and which == "best" else None
            chosen = int(best["step"]) if best else step
            if chosen not in passed:
                name = self.damaged_file(chosen)
                if name is None and chosen in steps:
                    return chosen
                if name is None:
                    passed[chosen] = f"checkpoints/{chosen}", f"{self}/checkpoints/{chosen} is damaged: it is not whole"
                else:
                    passed[chosen] = f"checkpoints/{chosen}/{name}", self._damaged_checkpoint(chosen, name)
                report(f"{passed[chosen][1]}; an older one is taken")
        ((path, what), *_) = passed.values()
        others = ", ".join(str(one) for one in steps if one not in passed) or "none"
        raise DamagedFile(f"{what}; name another one with --checkpoint; there are: {others}", path)

    def _damaged_checkpoint(self, step: int, name: str) -> str:
        return f"{self}/checkpoints/{step}/{name} is damaged: its SHA-256 is not the one in state.json"

    def _checkpoint_state(self, step: int) -> dict[str, Any] | None:
        try:
            state = self.read_json(f"checkpoints/{step}/state.json")
        except DamagedFile:
            return None
        if state is None or state["step"] != step or not is_sealed(state):
            return None
        files, full = self._open(f"checkpoints/{step}")
        infos = files.get_file_info([f"{full}/{name}" for name in state["files"]])
        return state if [info.size for info in infos] == list(state["files"].values()) else None

    def write_part(self, step: int, part: int, parts: int, files: Mapping[str, bytes]) -> dict[str, Seal]:
        """Write one of the parts of a checkpoint, by kind; returns what `seal_checkpoint` needs to know of it."""
        if parts == 1 and self.exists(f"checkpoints/{step}"):
            self.delete_checkpoint(step)
        named = {file_name(kind, part, parts): data for kind, data in files.items()}
        for name, data in named.items():
            self.write(f"checkpoints/{step}/{name}", data)
        return {name: seal_of(data) for name, data in named.items()}

    def seal_checkpoint(self, step: int, files: Mapping[str, Seal], state: Mapping[str, Any]) -> None:
        """Write the state of a checkpoint, once all parts are written: it is complete from here on."""
        for name in {*self.names(f"checkpoints/{step}")} - files.keys():
            # Of an attempt by another number of ranks, which was killed.
            disk, full = self._open(f"checkpoints/{step}/{name}")
            disk.delete_file(full)
        self.write_json(f"checkpoints/{step}/state.json", sealed({**state, "step": step}, files))

    def read_checkpoint(
        self, step: int, kinds: Collection[str] = KINDS
    ) -> tuple[Iterator[tuple[str, bytes]], dict[str, Any]]:
        """The names and contents of a whole checkpoint's files, one at a time, and its state.

        Raises:
            UserError: if there is none of that step, or a file of it does not hold what was written.
        """
        state = self._checkpoint_state(step)
        if state is None:
            steps = ", ".join(map(str, self.checkpoint_steps())) or "none"
            raise UserError(f"{self} has no whole checkpoint of step {step}; there are: {steps}")
        return self._files_of(step, sorted(name for name in state["files"] if kind_of(name) in kinds), state), state

    def _files_of(self, step: int, names: list[str], state: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            data = self.read(f"checkpoints/{step}/{name}")
            if sha256_of([data]) != state.get("sha256", {}).get(name, sha256_of([data])):
                others = ", ".join(str(one) for one in self.checkpoint_steps() if one != step) or "none"
                raise DamagedFile(
                    f"{self._damaged_checkpoint(step, name)}; take another checkpoint; there are: {others}",
                    f"checkpoints/{step}/{name}",
                )
            yield name, data

    def weights_digest(self, step: int) -> str:
        """The SHA-256 of the weights of a whole checkpoint."""
        files, _ = self.read_checkpoint(step, KINDS[:1])
        return sha256_of(data for _, data in files)

    def delete_checkpoint(self, step: int) -> None:
        """Delete a checkpoint: first its state.json, so that none is ever partly there."""
        files, full = self._open(f"checkpoints/{step}")
        if self.exists(f"checkpoints/{step}/state.json"):
            files.delete_file(f"{full}/state.json")
        self.delete_folder(f"checkpoints/{step}")
