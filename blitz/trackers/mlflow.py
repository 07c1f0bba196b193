"""MLflow, configured by MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME (`blitz` by default)."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from blitz.extras import extra
from blitz.trackers.tracker import End, Start, Step

# By default the client retries a request for minutes before it reports an error; the follower retries anyway.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

with extra("mlflow", what="--track mlflow"):
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run, RunTag

_MOST_METRICS, _MOST_PARAMS, _LONGEST_VALUE = 1000, 100, 6000
"""MLflow's limits on one request, and on the length of one value."""
_KEY, _STEP = "blitz.key", "blitz.step"
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "running": "RUNNING"}


class Mlflow:
    """A run of MLflow. A sweep is a run too, the parent of its trials.

    Each request stores its metrics, then a tag with their last step. MLflow ignores a metric that it already has with
    the same step and time, so a request may be repeated.
    """

    has_sweep_run: ClassVar[bool] = True
    seconds_between = 2.0
    is_durable = True

    def __init__(self) -> None:
        self._client = MlflowClient()
        self._id = ""

    def open(self, start: Start) -> str:
        """Create the run with its settings as parameters, or continue it."""
        known = start.id or self._find(start.key)
        if known:
            self._client.update_run(known, status="RUNNING")
            self._id = known
        else:
            tags = {_KEY: start.key, "blitz.uri": start.uri}
            tags |= {"blitz.sweep": start.group} if start.group else {}
            tags |= {"mlflow.parentRunId": start.parent} if start.parent else {}
            self._id = self._client.create_run(self._experiment(), run_name=start.name, tags=tags).info.run_id
        # A parameter cannot be changed once it has a value.
        has = self._client.get_run(self._id).data.params
        params = [Param(_name(key), str(value)[:_LONGEST_VALUE]) for key, value in start.config.items()]
        new = [param for param in params if param.key not in has]
        for first in range(0, len(new), _MOST_PARAMS):
            self._client.log_batch(self._id, params=new[first : first + _MOST_PARAMS])
        changed = {param.key: param.value for param in params if has.get(param.key, param.value) != param.value}
        for name, value in changed.items():
            self._client.set_tag(self._id, f"blitz.changed.{name}", value)
        return self._id

    def _find(self, key: str) -> str | None:
        found: list[Run] = self._client.search_runs([self._experiment()], f"tags.`{_KEY}` = '{key}'", max_results=1)
        return found[0].info.run_id if found else None

    def _experiment(self) -> str:
        if "MLFLOW_EXPERIMENT_ID" in os.environ:
            return os.environ["MLFLOW_EXPERIMENT_ID"]
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "blitz")
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def last_step(self) -> int | None:
        """The step of the last request that was stored completely."""
        step = self._client.get_run(self._id).data.tags.get(_STEP)
        return None if step is None else int(step)

    def send(self, steps: Sequence[Step], *, time_s: float) -> None:
        """Store steps, in requests of at most 1000 metrics."""
        for metrics, last in _requests(steps, round(time_s * 1000)):
            tags = [] if last is None else [RunTag(_STEP, str(last))]
            self._client.log_batch(self._id, metrics=metrics, tags=tags)

    def close(self, end: End) -> None:
        """Store the files as artifacts and the summary as tags."""
        with tempfile.TemporaryDirectory(prefix="blitz-") as folder:
            for name, data in end.files.items():
                Path(folder, name).write_bytes(data)
                self._client.log_artifact(self._id, str(Path(folder, name)))
        tags = [RunTag(f"blitz.{name}", str(value)) for name, value in end.summary.items()]
        self._client.log_batch(self._id, tags=tags)
        self._client.set_terminated(self._id, _STATUS[end.state])


def _name(name: str) -> str:
    """A name with only characters that MLflow allows."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:250]


def _requests(steps: Sequence[Step], time_ms: int) -> Iterator[tuple[list[Metric], int | None]]:
    """The metrics of each request and their last step; None if the request ends within a step."""
    waiting: list[Metric] = []
    last = None
    for step in steps:
        number = step["step"]
        metrics = [Metric(_name(key), float(value), time_ms, number) for key, value in step.items() if key != "step"]
        if waiting and len(waiting) + len(metrics) > _MOST_METRICS:
            yield waiting, last
            waiting = []
        while len(metrics) > _MOST_METRICS:
            yield metrics[:_MOST_METRICS], None
            metrics = metrics[_MOST_METRICS:]
        waiting, last = [*waiting, *metrics], number
    if waiting:
        yield waiting, last
