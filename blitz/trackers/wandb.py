"""Weights & Biases, configured by WANDB_API_KEY, WANDB_BASE_URL, WANDB_PROJECT, and WANDB_MODE=offline."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from blitz.errors import require
from blitz.extras import extra
from blitz.trackers.tracker import End, Start, Step

with extra("wandb", what="--track wandb"):
    import wandb

    from blitz.trackers.wandb_file import history

_SECONDS_BETWEEN_SESSIONS = 300.0
_SECONDS_TO_START = 30.0


class Wandb:
    """A run of W&B. A sweep is the name of a group.

    Online the client stays open. Its data may be lost if this process is killed, so each start asks W&B for the last
    step that it has. Offline the client writes to disk only when it finishes, so each send is a session with its own
    directory and the same run ID.
    """

    has_sweep_run: ClassVar[bool] = False

    def __init__(self) -> None:
        self._start: Start | None = None
        self._run: Any = None
        self._begun_at = 0.0
        settings = wandb.setup().settings
        # Set by WANDB_MODE or by the command `wandb offline`.
        self._offline = settings.mode in ("offline", "dryrun")
        self._folder = Path(settings.wandb_dir)

    @property
    def seconds_between(self) -> float:
        """Longer offline, where each session takes half a second and leaves a directory."""
        return _SECONDS_BETWEEN_SESSIONS if self._offline else 2.0

    @property
    def is_durable(self) -> bool:
        """Only offline: online, the last seconds may be lost."""
        return self._offline

    def open(self, start: Start) -> str:
        """Create or resume the run whose ID is the key."""
        self._start = start
        if not self._offline:
            self._begin()
        return start.key

    def _begin(self) -> Any:
        start = self._start
        assert start is not None
        if self._run is None:
            # A prompt for the API key would block this thread.
            login = self._offline or wandb.login(prompt=False)
            require(login, "W&B has no API key: set WANDB_API_KEY, or WANDB_MODE=offline, or run `wandb login`")
            # The name of a session's directory is its start time in seconds.
            time.sleep(max(0.0, self._begun_at + 1.0 - time.monotonic()) if self._offline else 0.0)
            self._begun_at = time.monotonic()
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "blitz"),
                id=start.key,
                name=start.name,
                group=start.group,
                job_type="trial" if start.group else "train",
                config={**start.config, "run_directory": start.uri},
                resume="allow",
                # A notebook may have a run of its own, and a sweep has several at a time.
                reinit="create_new",
                # By default the client would capture the output of this process.
                settings=wandb.Settings(console="off", init_timeout=_SECONDS_TO_START, silent=self._offline),
            )
        return self._run

    def _end_session(self) -> None:
        if self._offline:
            self._finish(0)

    def _finish(self, exit_code: int) -> None:
        run, self._run = self._run, None
        run.finish(exit_code=exit_code)

    def last_step(self) -> int | None:
        """The last step that W&B has, or that the local files of an offline run hold."""
        if not self._offline:
            return int(self._begin().step) - 1
        assert self._start is not None
        key = self._start.key
        files = self._folder.glob(f"offline-run-*-{key}/run-{key}.wandb")
        return max((row["_step"] for file in files for row in history(file)), default=None)

    def send(self, steps: Sequence[Step], *, time_s: float) -> None:
        """Log each step as a row."""
        run = self._begin()
        for step in steps:
            run.log({name: value for name, value in step.items() if name != "step"}, step=step["step"], commit=True)
        self._end_session()

    def close(self, end: End) -> None:
        """Store the files and the summary, and finish the run."""
        run = self._begin()
        run.summary.update(dict(end.summary))
        for name, data in end.files.items():
            path = Path(run.dir, name)
            path.write_bytes(data)
            run.save(str(path), base_path=run.dir, policy="now")
        self._finish(0 if end.state == "finished" else 1)
