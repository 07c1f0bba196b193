"""Comet, configured by COMET_API_KEY, COMET_WORKSPACE, COMET_PROJECT_NAME, and COMET_OFFLINE_DIRECTORY if offline."""

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from blitz.extras import extra
from blitz.trackers.tracker import End, Start, Step

# Without this the client patches torch to log by itself, and warns that it was imported after torch.
os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")
os.environ.setdefault("COMET_LOGGING_CONSOLE", "ERROR")

with extra("comet", what="--track comet"):
    import comet_ml

_SECONDS_BETWEEN_SESSIONS = 300.0
_OF_ITS_OWN = "process duration"
"""A metric that the client adds by itself."""


class Comet:
    """An experiment of Comet. A sweep is a tag of its trials.

    Offline, the client writes its archive only when the experiment ends. Each send is therefore a session of its own,
    with an archive of its own for the same experiment.
    """

    has_sweep_run: ClassVar[bool] = False
    is_durable = True

    def __init__(self) -> None:
        self._folder = os.environ.get("COMET_OFFLINE_DIRECTORY")
        self._experiment: Any = None
        self._start: Start | None = None

    @property
    def seconds_between(self) -> float:
        """Longer offline, where each session takes a second and leaves an archive."""
        return 5.0 if self._folder is None else _SECONDS_BETWEEN_SESSIONS

    def open(self, start: Start) -> str:
        """Create or continue the experiment whose ID is the key."""
        self._start = start
        if self._folder is None:
            self._experiment = self._begin()
        return start.key

    def _begin(self) -> Any:
        start = self._start
        assert start is not None
        experiment = comet_ml.start(
            online=self._folder is None,
            mode="get_or_create",
            experiment_key=start.key,
            project_name=os.environ.get("COMET_PROJECT_NAME", "blitz"),
            experiment_config=comet_ml.ExperimentConfig(
                name=start.name,
                tags=[start.group] if start.group else None,
                offline_directory=self._folder,
                log_code=False,
                log_graph=False,
                auto_param_logging=False,
                auto_metric_logging=False,
                auto_output_logging=False,
                parse_args=False,
                log_env_details=False,
                log_git_metadata=False,
                log_git_patch=False,
                display_summary_level=0,
            ),
        )
        experiment.log_parameters(dict(start.config))
        experiment.log_other("run_directory", start.uri)
        if start.group:
            experiment.log_other("sweep", start.group)
        return experiment

    @contextmanager
    def _session(self) -> Iterator[Any]:
        experiment = self._experiment or self._begin()
        yield experiment
        if self._folder is None:
            if not experiment.flush():
                raise ConnectionError("Comet has not accepted all metrics")
        else:
            experiment.end()

    def last_step(self) -> int | None:
        """The last step in Comet, or in the archives of an offline experiment."""
        assert self._start is not None
        if self._folder is None:
            found = comet_ml.API().get_experiment_by_key(self._start.key)
            values = found.get_metrics("epoch") if found else []
            return max((int(one["step"]) for one in values), default=None)
        archives = Path(self._folder).glob(f"{self._start.key}*.zip")
        return max((step for archive in archives for step, _, _ in archived_metrics(archive)), default=None)

    def send(self, steps: Sequence[Step], *, time_s: float) -> None:
        """Log the metrics of each step."""
        with self._session() as experiment:
            for step in steps:
                metrics = {name: value for name, value in step.items() if name != "step"}
                experiment.log_metrics(metrics, step=step["step"])

    def close(self, end: End) -> None:
        """Store the files as assets and the summary as other values, and end the experiment."""
        with tempfile.TemporaryDirectory(prefix="blitz-") as folder:
            with self._session() as experiment:
                experiment.log_others({**end.summary, "state": end.state})
                for name, data in end.files.items():
                    path = Path(folder, name)
                    path.write_bytes(data)
                    experiment.log_asset(str(path), file_name=name, overwrite=True)
            experiment.end()
        self._experiment = None


def archived_metrics(archive: Path) -> Iterator[tuple[int, str, float]]:
    """The step, the name and the value of each metric that was logged into an offline archive."""
    with zipfile.ZipFile(archive) as files:
        for line in files.read("messages.json").splitlines():
            message = json.loads(line)
            if message["type"] == "metric_msg":
                metric = message["payload"]["metric"]
                if metric["metricName"] != _OF_ITS_OWN:
                    yield metric["step"], metric["metricName"], float(metric["metricValue"])
