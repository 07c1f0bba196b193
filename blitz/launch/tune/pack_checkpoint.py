"""The checkpoint of a pack in progress, in the directory of its sweep."""

import hashlib
import io
import json
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from blitz.run_files.directory import RunDirectory
from blitz.run_files.sweep_directory import PACKS
from blitz.settings import to_json
from blitz.training.packed import PackJob


@dataclass
class PackCheckpoint:
    """Writes the state of a pack after an evaluation, about once a minute, so that a killed pack resumes there."""

    run: RunDirectory
    """The sweep's directory."""
    name: str
    job: PackJob
    every_s: float = 60.0
    most_of_the_time: float = 0.05
    """The share of the pack's time that writing may take."""
    _written: float = field(default=0.0, init=False)
    _seconds: float = field(default=0.0, init=False)

    @property
    def path(self) -> str:
        """The file within the sweep's directory."""
        return f"{PACKS}/{self.name}/state.pt"

    def load(self) -> dict[str, Any] | None:
        """The state that was written last; None if there is none of this job, or if it is damaged."""
        self._written = time.monotonic()
        if not self.run.exists(self.path):
            return None
        try:
            # Tensors, numbers and text alone: no code.
            stored: dict[str, Any] = torch.load(io.BytesIO(self.run.read(self.path)), weights_only=True)
        except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError):
            return None
        return stored["state"] if stored["job"] == self._fingerprint() else None

    def evaluated(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write the pack's state if it is time."""
        started = time.monotonic()
        if started - self._written < max(self.every_s, self._seconds / self.most_of_the_time):
            return
        data = io.BytesIO()
        torch.save({"job": self._fingerprint(), "state": state()}, data)
        self.run.write(self.path, data.getvalue())
        self._written = time.monotonic()
        self._seconds = self._written - started

    def delete(self) -> None:
        """Delete it, once the pack is recorded."""
        if self.run.exists(self.path):
            self.run.delete_folder(f"{PACKS}/{self.name}")

    def _fingerprint(self) -> str:
        job = self.job
        rungs = None if job.rungs is None else asdict(job.rungs)
        parts = [[to_json(recipe) for recipe in job.recipes], asdict(job.plan), rungs]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
