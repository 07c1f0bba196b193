"""Trackio, configured by TRACKIO_DIR, or TRACKIO_SPACE_ID for a Space, and TRACKIO_PROJECT."""

import contextvars
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from blitz.extras import extra
from blitz.trackers.tracker import End, Start, Step

with extra("trackio", what="--track trackio"):
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

# Trackio's client checks whether a value is a matplotlib figure. While another thread imports matplotlib, the check
# fails and the client drops the value. Importing it here, before any thread starts, avoids that.
for _name in ("matplotlib.animation", "matplotlib.pyplot"):
    with suppress(ImportError):
        import_module(_name)

_SECONDS_TO_STORE = 30.0


class Trackio:
    """A run of Trackio. A sweep is the name of a group.

    Trackio identifies a run by its name, so part of the key is appended to it. The client stores in its own thread,
    which `send` waits for.
    """

    has_sweep_run: ClassVar[bool] = False
    seconds_between = 2.0
    is_durable = True

    def __init__(self) -> None:
        self._project = os.environ.get("TRACKIO_PROJECT", "blitz")
        self._run: Any = None

    def open(self, start: Start) -> str:
        """Create the run or resume it."""
        self._run = contextvars.Context().run(
            # In its own context, because the client would otherwise finish another run of this thread.
            trackio.init,
            project=self._project,
            name=f"{start.name}-{start.key[:6]}",
            group=start.group,
            config={**start.config, "run_directory": start.uri},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return str(self._run.name)

    def last_step(self) -> int | None:
        """The last step in the store; for a remote store, as the client found it when it started."""
        if self._run._is_local:
            step: int | None = SQLiteStorage.get_last_step(self._project, run_id=self._run.id)
            return step
        return int(self._run._next_step) - 1

    def send(self, steps: Sequence[Step], *, time_s: float) -> None:
        """Log each step, and wait until a local store has the last one."""
        for step in steps:
            self._run.log({name: value for name, value in step.items() if name != "step"}, step=step["step"])
        give_up = time.monotonic() + _SECONDS_TO_STORE
        while self._run._is_local and self.last_step() != steps[-1]["step"]:
            if time.monotonic() > give_up:
                raise TimeoutError(f"Trackio has not stored step {steps[-1]['step']}")
            time.sleep(0.05)

    def close(self, end: End) -> None:
        """Store the files and the summary as an artifact, and finish the run."""
        with tempfile.TemporaryDirectory(prefix="blitz-") as folder:
            for name, data in end.files.items():
                Path(folder, name).write_bytes(data)
            artifact = trackio.Artifact(name=f"{self._run.name}-report", type="report", metadata=dict(end.summary))
            artifact.add_dir(folder)
            self._run.log_artifact(artifact)
        run, self._run = self._run, None
        run.finish()
