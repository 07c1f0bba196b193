"""Runs that are killed with SIGKILL at some step, and resume: in this process, on Ray, and from one to the other."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cluster_utils import Cluster
from torch import nn

import blitz
from blitz.errors import RunFailed
from blitz.optim import Optim
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import Checkpoints
from tests.clusters import env_of_driver
from tests.float64 import TOLERANCE, in_float64
from tests.miniature_objects import Net, Noisy, Pairs
from tests.running import losses, result, same_bits, train, train_workers, weights

RECIPE = Digits(epochs=12, global_batch_size=31, log_every_steps=1, optim=Optim(name="momentum", lr=0.01))
EXACT = in_float64(RECIPE)
"""Whose losses do not depend on the number of workers."""
"""47 steps an epoch, 564 in all; 2 and 3 workers do not divide the batch."""
CHECKPOINTS = Checkpoints(every_steps=10)
FLAGS = shlex.split(
    "digits --epochs 12 --global-batch-size 31 --log-every-steps 1 --checkpoint.every-steps 10"
    " --optim.name momentum --optim.lr 0.01 --optim.schedule constant --optim.warmup-steps 0 --no-report"
)
TRAIN_EXACT = (
    "import sys; from tests.end_to_end.test_kills import CHECKPOINTS, EXACT; from tests.running import train; "
    "train(EXACT, sys.argv[1], checkpoints=CHECKPOINTS)"
)
RANDOM = random.Random(2024)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """In this process, never stopped."""
    return train(RECIPE, tmp_path_factory.mktemp("undisturbed"), checkpoints=CHECKPOINTS)


@pytest.fixture(scope="module")
def undisturbed_exact(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The same in float64."""
    return train(EXACT, tmp_path_factory.mktemp("undisturbed_exact"))


@contextmanager
def at_step(step: int, folder: Path, act: Callable[[], None]) -> Iterator[threading.Event]:
    """While the block runs, `act` once the run in `folder` has logged `step`; the event says whether it came to it."""
    done, acted, metrics = threading.Event(), threading.Event(), folder / "metrics.jsonl"

    def watch() -> None:
        while not done.wait(0.005):
            lines = metrics.read_bytes().splitlines() if metrics.exists() else []
            if len(lines) > 1 and json.loads(lines[-2])["step"] >= step:
                act()
                acted.set()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield acted
    finally:
        done.set()
        watcher.join()


def train_command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "jobs.train", *FLAGS, "--run", "killed", "--storage", str(folder)]


def kill_in_process(folder: Path, *, at: int, exact: bool = False) -> RunDirectory:
    """Train in a process of its own until step `at`, and kill that; `exact` in float64."""
    command = [sys.executable, "-c", TRAIN_EXACT, str(folder / "killed")] if exact else train_command(folder)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with at_step(at, folder / "killed", process.kill):
        assert process.wait() == -signal.SIGKILL
    return RunDirectory.of(str(folder), "killed")


def kill_a_worker() -> None:
    RANDOM.choice(train_workers()).kill()


@pytest.fixture(scope="module")
def calm(ray_runtime: None, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """On two workers, never stopped."""
    return train(RECIPE, tmp_path_factory.mktemp("calm"), num_workers=2, checkpoints=CHECKPOINTS)


def test_a_killed_run_resumes_to_the_bits_of_one_that_was_never_stopped(
    undisturbed: RunDirectory, tmp_path: Path
) -> None:
    for step in sorted(RANDOM.sample(range(15, 450), 2)):
        killed = kill_in_process(tmp_path, at=step)
    subprocess.run(train_command(tmp_path), check=True, stdout=subprocess.DEVNULL)
    assert same_bits(weights(killed), weights(undisturbed))
    assert losses(killed) == losses(undisturbed)
    assert result(killed) == result(undisturbed)


def train_objects(storage: str) -> blitz.Run:
    """A run of plain objects, whose rows draw from the ambient generators: 600 steps."""
    return blitz.train(
        model=Net,
        train=Noisy(400),
        val=Pairs(),
        loss=nn.CrossEntropyLoss(),
        optim=Optim("adam"),
        epochs=12,
        global_batch_size=8,
        log_every_steps=1,
        checkpoint=CHECKPOINTS,
        num_workers=0,
        storage=storage,
        run="objects",
        report=False,
    )


def test_a_killed_run_of_plain_objects_resumes_to_the_same_bits(tmp_path: Path) -> None:
    program = "import sys; from tests.end_to_end.test_kills import train_objects; train_objects(sys.argv[1])"
    storage = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", program, str(storage)], stdout=subprocess.DEVNULL)
    with at_step(RANDOM.randrange(100, 400), storage / "objects", process.kill):
        assert process.wait() == -signal.SIGKILL
    assert RunDirectory.of(str(storage), "objects").checkpoint_steps()
    killed, whole = train_objects(str(storage)), train_objects(str(tmp_path / "whole"))
    assert [event["what"] for event in killed.directory.events()] == ["started", "resumed", "finished"]
    assert result(killed.directory) == result(whole.directory)
    assert losses(killed.directory) == losses(whole.directory)
    assert same_bits(weights(killed.directory), weights(whole.directory))


@pytest.mark.cluster
def test_a_killed_worker_is_replaced_and_the_run_ends_with_the_same_bits(
    undisturbed: RunDirectory, calm: RunDirectory, tmp_path: Path
) -> None:
    # With another feed than the run that it is compared with: fetched by Ray Data, which outlives the worker.
    with at_step(RANDOM.randrange(15, 300), tmp_path, kill_a_worker) as acted:
        killed = train(RECIPE, tmp_path, num_workers=2, max_failures=1, checkpoints=CHECKPOINTS, feed="stream")
    assert acted.is_set()
    assert same_bits(weights(killed), weights(calm))
    assert losses(killed) == losses(calm)
    assert result(killed)["rows_digest"] == result(undisturbed)["rows_digest"]


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_driver_and_then_a_killed_node_change_no_bit(
    undisturbed: RunDirectory, calm: RunDirectory, cluster: Cluster, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    command = [*train_command(tmp_path), "--scale.num-workers", "2", "--scale.feed", "stream", "--max-failures", "1"]
    env = env_of_driver(cluster.address)

    def kill_a_node() -> None:
        of_workers = {worker.ppid() for worker in train_workers()}
        raylets = {node: node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid for node in nodes}
        victim = RANDOM.choice([node for node, raylet in raylets.items() if raylet in of_workers])
        nodes.remove(victim)
        cluster.remove_node(victim, allow_graceful=False)

    try:
        driver = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        with at_step(RANDOM.randrange(15, 250), tmp_path / "killed", driver.kill):
            assert driver.wait() == -signal.SIGKILL
        with at_step(RANDOM.randrange(300, 500), tmp_path / "killed", kill_a_node) as acted:
            subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    finally:
        for node in nodes:
            cluster.remove_node(node, allow_graceful=False)
    assert acted.is_set()
    killed = RunDirectory.of(str(tmp_path), "killed")
    (restarted,) = [event for event in killed.events() if event["what"] == "restarted"]
    assert list(restarted["seconds"]) == ["processes", "torch", "restore", "rows", "step"]
    assert min(restarted["seconds"].values()) >= 0
    assert same_bits(weights(killed), weights(calm))
    assert losses(killed) == losses(calm)
    assert result(killed)["rows_digest"] == result(undisturbed)["rows_digest"]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_a_run_started_in_this_process_resumes_on_two_workers(undisturbed_exact: RunDirectory, tmp_path: Path) -> None:
    run = kill_in_process(tmp_path, at=RANDOM.randrange(15, 450), exact=True)
    train(EXACT, Path(run.uri), num_workers=2, checkpoints=CHECKPOINTS)
    assert losses(run) == pytest.approx(losses(undisturbed_exact), rel=TOLERANCE)
    assert result(run)["rows_digest"] == result(undisturbed_exact)["rows_digest"]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_a_run_killed_on_two_workers_resumes_in_this_process(undisturbed_exact: RunDirectory, tmp_path: Path) -> None:
    with (
        at_step(RANDOM.randrange(15, 300), tmp_path, kill_a_worker),
        pytest.raises(RunFailed, match="a worker died"),
    ):
        train(EXACT, tmp_path, num_workers=2, checkpoints=CHECKPOINTS)
    run = train(EXACT, tmp_path, checkpoints=CHECKPOINTS)
    assert losses(run) == pytest.approx(losses(undisturbed_exact), rel=TOLERANCE)
    assert result(run)["rows_digest"] == result(undisturbed_exact)["rows_digest"]


def test_a_run_that_is_asked_to_stop_saves_the_step_that_it_is_at(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*train_command(tmp_path), "--epochs", "10000", "--checkpoint.every-steps", "1000000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with at_step(RANDOM.randrange(15, 300), tmp_path / "killed", process.terminate):
        _, printed = process.communicate()
    run = RunDirectory.of(str(tmp_path), "killed")
    step = run.checkpoint_steps()[-1]
    assert process.returncode == 128 + signal.SIGTERM
    assert printed == f"stop requested: saved at step {step}; the same command resumes there\n"
    assert run.metrics()[-1]["step"] == step
    undisturbed = train(replace(RECIPE, max_steps=step, epochs=10000), tmp_path / "undisturbed")
    assert same_bits(weights(run), weights(undisturbed))


@pytest.mark.parametrize("flags", [[], pytest.param(["--scale.num-workers", "2"], marks=pytest.mark.cluster)])
def test_ctrl_c_ends_in_one_line_and_leaves_a_run_to_continue_and_no_process(flags: list[str], tmp_path: Path) -> None:
    # A session of its own, because Ctrl-C goes to all processes of a terminal.
    process = subprocess.Popen(
        [*train_command(tmp_path), *flags],
        env={name: value for name, value in os.environ.items() if name != "RAY_worker_niceness"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children: list[psutil.Process] = []
    priorities: set[int] = set()
    reachable: list[str] = []
    listening: list[str] = []

    def interrupt() -> None:
        children.extend(psutil.Process(process.pid).children(recursive=True))
        priorities.update(child.nice() for child in children)
        for each in [psutil.Process(process.pid), *children]:
            for one in each.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    is_loopback = ip_address(one.laddr.ip.removeprefix("::ffff:")).is_loopback
                    (listening if is_loopback else reachable).append(each.name())
        os.killpg(process.pid, signal.SIGINT)

    with at_step(20, tmp_path / "killed", interrupt):
        _, printed = process.communicate()
    assert process.returncode == 130
    # Workers too are at that of the command.
    assert priorities == ({psutil.Process().nice()} if flags else set())
    # No other machine can reach a local cluster, but for torch's own store at the first worker, which takes no address.
    assert {"gcs_server", "raylet"} <= set(listening) or not flags
    assert reachable in ([], ["ray::RayTrainWorker"])
    assert printed == "interrupted; the same command continues from the last checkpoint\n"
    assert RunDirectory.of(str(tmp_path), "killed").checkpoint_steps()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
