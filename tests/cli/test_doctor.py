"""Faults that are real, each found in its line and within ten seconds."""

import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from blitz.cli import doctor, train
from blitz.errors import UserError
from tests.clusters import Head, blind_to, head_node, joined_node

Examine = Callable[..., str]


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Examine:
    """The findings in this process, in an empty folder and without a cluster."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, errors: int = 0) -> str:
        try:
            doctor.main(list(words))
            said = ""
        except UserError as error:
            said = str(error)
        found = capsys.readouterr().out
        assert len(re.findall("^error ", found, re.MULTILINE)) == errors, found
        assert bool(said) == bool(errors)
        return found

    return run


def line(found: str, level: str, subject: str) -> str:
    """The text of the only finding of that level on that subject."""
    (text,) = re.findall(rf"^{level} +{subject} +(.*)$", found, re.MULTILINE)
    return str(text)


def test_where_nothing_is_wrong_each_subject_is_ok(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = examine("digits")
    for subject in ("scale", "versions", "storage", "data", "upload", "OMP_NUM_THREADS", "GPUs", "open files"):
        assert line(found, "ok", subject)


def test_no_ray_is_started_or_imported_without_a_cluster(tmp_path: Path) -> None:
    program = (
        "import sys; from blitz.cli.doctor import main; "
        f"main(['digits', '--scale.num-workers', '1', '--storage', {str(tmp_path)!r}]); import ray; "
        "sys.exit(ray.is_initialized() or 'ray.data' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_dead_address(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
    assert "nothing answers there" in line(examine("digits", errors=1), "error", "scale")


def test_a_dashboards_address(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    assert "use `ray job submit" in line(examine("digits", errors=1), "error", "scale")


def test_no_token_where_one_is_to_be_sent(examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{there.getsockname()[1]}")
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
        assert f"there is none in {tmp_path}/none" in line(examine("digits", errors=1), "error", "scale")


def test_more_workers_than_there_are_cpus(examine: Examine) -> None:
    assert "ask for fewer workers" in line(examine("digits", "--scale.num-workers", "999", errors=1), "error", "scale")


def test_a_gpu_where_there_is_none(examine: Examine) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert "torch finds no GPU" in line(examine("digits", "--scale.use-gpu", "yes", errors=1), "error", "scale")


def test_a_storage_that_cannot_be_written(examine: Examine) -> None:
    found = examine("digits", "--storage", "/dev/null/runs", errors=1)
    assert "/dev/null/runs cannot be written" in line(found, "error", "storage")


def test_a_storage_that_ray_deletes_with_the_job(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert f"{folder}/runs is in the folder of the submitted job" in line(
        examine("digits", errors=1), "error", "storage"
    )
    with pytest.raises(UserError, match="name a folder that all nodes mount"):
        train.main(["digits"])


def test_a_storage_that_does_not_answer_takes_no_longer_than_ten_seconds() -> None:
    # Takes connections and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"s3://bucket/runs?scheme=http&endpoint_override=127.0.0.1:{silent.getsockname()[1]}"
        # It never would: what ends is the check's own limit.
        done = subprocess.run(
            [sys.executable, "-m", "jobs.doctor", "digits", "--storage", uri],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "has not answered within 10 s" in line(done.stdout, "error", "storage")


def test_data_that_is_not_there(examine: Examine) -> None:
    found = examine("table_csv", "--data.train-csv", "nosuch.csv", "--data.target", "x", errors=1)
    assert "nosuch.csv" in line(found, "error", "data")


@pytest.mark.parametrize("value", ["abc", "10000"])
def test_a_mistyped_number_of_threads(value: str, examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert value in line(examine("digits"), "warning", "OMP_NUM_THREADS")


def test_a_large_folder_in_the_upload(examine: Examine, tmp_path: Path) -> None:
    with (tmp_path / "video.mp4").open("wb") as file:
        file.truncate(100 << 20)
    assert "100.0 MiB would go with --working-dir . (video.mp4 100.0)" in line(examine("digits"), "warning", "upload")


@pytest.mark.parametrize(("limit", "level", "subject"), [(1000, "warning", "open files"), (100, "error", "scale")])
def test_few_file_descriptors(limit: int, level: str, subject: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.doctor", "digits", "--scale.num-workers", "1", "--storage", str(tmp_path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if level == "error" else 0)
    assert f"{limit} a process are few for Ray" in line(done.stdout, level, subject)


def on_cluster(head: Head, *words: str, env: Mapping[str, str] | None = None, code: int = 2) -> str:
    """The findings of a command that has the cluster's address."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.doctor", *words],
        env={**head.env, "RAY_ADDRESS": head.address, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.cluster
def test_a_healthy_cluster_that_a_node_has_left(head: Head, tmp_path: Path) -> None:
    with joined_node(head):
        pass
    found = on_cluster(head, "digits", "--storage", str(tmp_path), "--scale.num-workers", "2", code=0)
    for subject in ("scale", "versions", "storage", "data", "upload", "GPUs", "open files"):
        assert line(found, "ok", subject)
    assert "2 of 1 CPU each fit beside Ray Data in 4 CPUs on 1 node" in line(found, "ok", "workers")
    assert "asks for a token" in line(found, "ok", "authentication")
    assert f"{head.dashboard} and knows 1 node" in line(found, "ok", "dashboard")
    # Nothing is left of the probes.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"RAY_AUTH_MODE": ""}, "the cluster wants a token; set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN": "of another cluster, and as long as one should be"}, "the token is not the one of that"),
        ({"RAY_ADDRESS": "the dashboard's"}, "is not the head node of a Ray cluster"),
    ],
)
def test_a_cluster_that_does_not_let_in(head: Head, env: dict[str, str], says: str, tmp_path: Path) -> None:
    if "RAY_ADDRESS" in env:
        env = {"RAY_ADDRESS": head.dashboard.removeprefix("http://")}
    assert says in line(on_cluster(head, "digits", "--storage", str(tmp_path), env=env), "error", "scale")


@pytest.mark.cluster
def test_more_workers_and_gpus_than_the_cluster_has(head: Head, tmp_path: Path) -> None:
    found = on_cluster(head, "digits", "--storage", str(tmp_path), "--scale.num-workers", "100")
    assert "the cluster has 4 CPUs" in line(found, "error", "workers")
    found = on_cluster(head, "digits", "--storage", str(tmp_path), "--scale.use-gpu", "yes")
    assert "the cluster has no GPU" in line(found, "error", "workers")


@pytest.mark.cluster
def test_a_storage_that_no_node_can_write(head: Head) -> None:
    found = on_cluster(head, "digits", "--storage", "/dev/null/runs")
    assert "/dev/null/runs cannot be written" in line(found, "error", "storage")


@pytest.mark.cluster
def test_a_cluster_without_a_token_and_a_dashboard_and_with_gpus_that_are_not_there(tmp_path: Path) -> None:
    with head_node("--include-dashboard=false", "--num-gpus=2", env={"RAY_AUTH_MODE": "disabled"}) as head:
        found = on_cluster(head, "digits", "--storage", str(tmp_path))
        refused = on_cluster(head, "digits", "--storage", str(tmp_path), env={"RAY_AUTH_MODE": "token"})
    assert "unset RAY_AUTH_MODE" in line(refused, "error", "scale")
    assert "start its head with RAY_AUTH_MODE=token" in line(found, "warning", "authentication")
    assert "--include-dashboard=true" in line(found, "error", "dashboard")
    assert "Ray counts 2, and torch finds 0" in line(found, "error", "GPUs")


@pytest.mark.cluster
def test_a_cluster_of_another_version(head: Head, tmp_path: Path) -> None:
    # The version that a head node reports, which every client compares with its own.
    program = (
        "import json, sys; from ray._raylet import GcsClient; client = GcsClient(address=sys.argv[1]); "
        "key = (b'CLUSTER_METADATA', b'cluster'); reported = json.loads(client.internal_kv_get(*key)); "
        "reported = json.dumps({**reported, 'ray_version': sys.argv[2]}).encode(); "
        "client.internal_kv_put(key[0], reported, True, key[1])"
    )

    def report(reported: str) -> None:
        subprocess.run([sys.executable, "-c", program, head.address, reported], env=head.env, check=True)

    report("2.58.0")
    try:
        found = on_cluster(head, "digits", "--storage", str(tmp_path))
    finally:
        report(version("ray"))
    assert "Ray: 2.58.0" in line(found, "error", "cluster")


@pytest.mark.cluster
def test_a_node_that_sees_neither_the_storage_nor_the_data(head: Head, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "train.csv").write_text("x,kind\n" + "1,a\n2,b\n" * 20)
    words = ["table_csv", "--data.train-csv", f"{folder}/train.csv", "--data.target", "kind"]
    words += ["--data.cache", f"{folder}/cache", "--storage", f"{folder}/runs"]
    # More than ten seconds: four processes must start on a machine with more work than cores.
    program = (
        "import sys; from blitz.launch.doctor.examine import examine; "
        "from blitz.launch.placement import Placement; from blitz.cli.train import read_settings; "
        "settings = read_settings(sys.argv[1:], prog=''); recipe = settings.recipe.fitted(); "
        "opened = {'train': recipe.dataset('train'), 'val': recipe.dataset('val')}; "
        "print(*examine(Placement(settings.scale), settings.storage, lambda: opened, seconds=100), sep='\\n')"
    )
    with joined_node(head, *blind_to(folder)):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            env={**head.env, "RAY_ADDRESS": head.address},
            capture_output=True,
            text=True,
            check=True,
        )
    found = done.stdout
    assert "does not see" in line(found, "error", "storage")
    assert "all nodes must see the data" in line(found, "error", "data")
    assert "rows, and they can be read" in line(found, "ok", "data")
