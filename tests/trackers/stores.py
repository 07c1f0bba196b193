"""What real stores of trackers hold: an MLflow server, and the local files of the others."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

Logged = Counter[tuple[int, str, float]]
"""How often each (step, name, value) is in a store."""


@dataclass
class Stored:
    """A run as a tracker has it."""

    name: str
    group: str | None
    config: dict[str, str]
    summary: dict[str, Any] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    state: str = ""
    logged: Logged = field(default_factory=Counter)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """MLflow's own server, with its data in SQLite; its URI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    words = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "artifacts", "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *words]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    uri = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_until(lambda: _answers(f"{uri}/health"), process=process, says=(folder / "log").read_text)
            yield uri
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def in_mlflow(uri: str) -> list[Stored]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("blitz")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    names = {one.info.run_id: one.info.run_name for one in found}
    stored = []
    for one in found:
        tags, run_id = one.data.tags, one.info.run_id
        group = names.get(tags.get("mlflow.parentRunId", ""))
        summary = {name.removeprefix("blitz."): value for name, value in tags.items() if name.startswith("blitz.")}
        logged = Counter(
            (metric.step, name, metric.value)
            for name in one.data.metrics
            for metric in client.get_metric_history(run_id, name)
        )
        files = {file.path for file in client.list_artifacts(run_id)}
        stored.append(Stored(names[run_id], group, one.data.params, summary, files, one.info.status, logged))
    return stored


def in_wandb(folder: Path) -> list[Stored]:
    from blitz.trackers.wandb_file import history, records

    stored: dict[str, Stored] = {}
    for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for record in records(file):
            if record.WhichOneof("record_type") == "run":
                run = record.run
                config = {one.key: one.value_json for one in run.config.update}
                found = stored.setdefault(run.run_id, Stored(run.display_name, run.run_group or None, config))
            if record.WhichOneof("record_type") == "summary":
                found.summary |= {item.key: json.loads(item.value_json) for item in record.summary.update}
            if record.WhichOneof("record_type") == "exit":
                found.state = str(record.exit.exit_code)
        found.files |= {path.name for path in (file.parent / "files").iterdir()}
        found.logged += Counter(
            (row["_step"], name, value)
            for row in history(file)
            for name, value in row.items()
            if not name.startswith("_")
        )
    return list(stored.values())


def in_trackio(folder: Path) -> list[Stored]:
    with closing(sqlite3.connect(folder / "blitz.db")) as database:
        stored = {}
        for run_id, name, config in database.execute("select run_id, run_name, config from configs"):
            values = json.loads(config)
            stored[run_id] = Stored(name, values["_Group"], values)
        for run_id, step, metrics in database.execute("select run_id, step, metrics from metrics"):
            stored[run_id].logged += Counter((step, name, value) for name, value in json.loads(metrics).items())
        for name, manifest, metadata in database.execute(
            "select a.name, v.manifest, v.metadata from artifact_versions v join artifacts a on v.artifact_id = a.id"
        ):
            run = next(one for one in stored.values() if name == f"{one.name}-report")
            run.files |= {entry["path"] for entry in json.loads(manifest)}
            run.summary |= json.loads(metadata or "{}")
    return list(stored.values())


def in_comet(folder: Path) -> list[Stored]:
    import zipfile

    from blitz.trackers.comet import archived_metrics

    stored: dict[str, Stored] = {}
    for archive in folder.glob("*.zip"):
        run = stored.setdefault(archive.name[:32], Stored("", None, {}))
        run.logged += Counter(archived_metrics(archive))
        with zipfile.ZipFile(archive) as files:
            for line in files.read("messages.json").splitlines():
                message = json.loads(line)
                payload = message["payload"]
                if message["type"] == "parameter_msg":
                    param = payload.get("param") or payload["params"]
                    run.config[param["paramName"]] = str(param.get("paramValue", param.get("paramValues")))
                if message["type"] == "log_other":
                    run.summary[payload["key"]] = payload["value"]
                if message["type"] == "file_upload":
                    run.files.add(payload["additional_params"]["fileName"])
        run.name, run.group = run.summary["Name"], run.summary.get("sweep")
    return list(stored.values())
