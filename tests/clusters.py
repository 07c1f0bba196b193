"""Ray clusters of a test's own: real processes, with ports and a folder of their own."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until

TOKEN = "a token that only these tests know, long enough for Ray"
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A head node, and the environment in which commands are let in."""

    address: str
    dashboard: str
    env: Mapping[str, str]
    process: psutil.Process
    folder: Path
    """Ray's folder of sessions and uploads."""
    client: str
    """The address of its server for Ray Client."""
    bin: Path = _BIN
    """The folder of its `ray` and `python`."""

    def ray(self, *words: str, cwd: Path | None = None, check: bool = True) -> str:
        """The output of a Ray command."""
        done = subprocess.run(
            [str(self.bin / "ray"), *words],
            cwd=cwd,
            env={**self.env, "RAY_API_SERVER_ADDRESS": self.dashboard},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout

    def job_state(self, job: str) -> str:
        """The status of a submitted job, as `ray job status` prints it, without a process that imports Ray."""
        request = urllib.request.Request(
            f"{self.dashboard}/api/jobs/{job}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request) as answer:
            return str(json.load(answer)["status"])

    def job_state_at_the_end(self, job: str) -> str:
        """Its status once it has ended."""
        wait_until(lambda: self.job_state(job) not in ("PENDING", "RUNNING"), every=0.2)
        return self.job_state(job)


@contextmanager
def head_node(
    *flags: str,
    cpus: int = 4,
    env: Mapping[str, str] = {},
    before: Callable[[str], object] = str,
    bin: Path = _BIN,
) -> Iterator[Head]:
    """A head node on free ports that requires a token; stopped, with everything that it started, when the block ends.

    `before` is called with its address before it is started; `bin` has the `ray` and `python` of its environment.
    """
    # Not in pytest's own folder: the paths of sockets must be short.
    folder = Path(tempfile.mkdtemp(prefix="blitz-ray-"))
    port, dashboard, client = _free_ports(3)
    # As in an activated environment: a job's `python` is found on the PATH of the head.
    path = f"{bin}{os.pathsep}{os.environ['PATH']}"
    # The timeout of `ray job stop`: its 3 seconds are too short on a machine with more work than cores.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_JOB_STOP_WAIT_TIME_S": "60", "OMP_NUM_THREADS": "1"}
    # Nothing here waits for a node to drain; and workers must not have a lower priority than other tests.
    settings |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", "RAY_worker_niceness": "0"}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    outer = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**outer, **settings, **token, "PATH": path, **env}
    log = folder / "head.log"
    before(f"{_own_address()}:{port}")
    with log.open("w") as output:
        ports = [f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        head = psutil.Popen(
            [
                *(str(bin / "ray"), "start", "--head", "--block", *ports, "--dashboard-agent-listen-port=0"),
                *(f"--num-cpus={cpus}", f"--temp-dir={folder}", *flags),
            ],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_started(head, log)
        addresses = (f"{_own_address()}:{port}", f"http://127.0.0.1:{dashboard}")
        yield Head(*addresses, environment, head, folder, f"ray://127.0.0.1:{client}", bin)
    finally:
        _stop(head)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def joined_node(head: Head, *within: str, cpus: int = 2) -> Iterator[psutil.Process]:
    """One more node for a cluster, on the same machine; started by the command `within`, if there is one."""
    log = head.folder / f"node-{len(list(head.folder.glob('node-*.log')))}.log"
    with log.open("w") as output:
        node = psutil.Popen(
            [
                *(*within, str(head.bin / "ray"), "start", "--block", f"--address={head.address}"),
                *("--dashboard-agent-listen-port=0", f"--num-cpus={cpus}"),
            ],
            cwd=head.folder,
            env=dict(head.env),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_started(node, log)
        yield node
    finally:
        _stop(node)


def blind_to(folder: Path) -> list[str]:
    """A command that starts another one with a file system of its own at `folder`, for `joined_node`.

    The test is skipped where this user may not mount one.
    """
    command = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {folder} && exec "$@"', "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    return command


def env_of_driver(address: str) -> dict[str, str]:
    """The environment for a command on the cluster at `address`, whose nodes this process has started."""
    return {**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"}


def _stop(node: psutil.Process) -> None:
    """Stop what `ray start` has started, with all descendants."""
    started = [node, *node.children(recursive=True)]
    node.terminate()
    _, alive = psutil.wait_procs(started, timeout=5)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive)


def _wait_until_started(node: psutil.Process, log: Path) -> None:
    def started() -> bool:
        # A process that has ended and is not waited for yet counts as running.
        assert node.status() != psutil.STATUS_ZOMBIE, log.read_text()
        return "Ray runtime started" in log.read_text()

    wait_until(started, says=log.read_text)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _own_address() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())
