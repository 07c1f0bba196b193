"""Kill runs at random steps with SIGKILL, resume them, and count how many end equal to an undisturbed run.

    python -m bench.chaos [--kills 20] [--kills-a-run 5] [--kinds process driver worker node hang] [--minutes 10]
        [--seed 0]

`process` kills a run in one process, and gives the same command again; the others run on two workers of a cluster of
four nodes on this machine: `driver` kills the command, and gives it again; `worker` kills a Ray Train worker; `node` a
raylet, with all that runs on it, and another node joins; `hang` stops a worker with SIGSTOP, which kills nothing. A run
is killed several times, on Ray in mixed ways. It ends equal if its rows_digest is that of an undisturbed run and, on as
many workers, its weights are the same bits. A hang is named rightly if the run says which process was stopped, and
wrongly if it names another or one that was not stopped; the goodput of each run is printed as well.
"""

import argparse
import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from ray.cluster_utils import Cluster

from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from tests.clusters import env_of_driver
from tests.running import train_workers

_FLAGS = shlex.split(
    "digits --epochs 12 --global-batch-size 31 --log-every-steps 1 --checkpoint.every-steps 10 --optim.name momentum"
    " --optim.lr 0.01 --optim.schedule constant --optim.warmup-steps 0 --run chaos"
)
_STEPS = 564
_POLL_S = 0.002
_ON_RAY = ["--scale.num-workers", "2", "--max-failures", "1000", "--scale.hang-timeout-s", "20"]
# A node that is killed is missed after some two seconds.
_CHECKS = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


class _Runs:
    """Starts runs, without Ray or on a cluster that is started when it is first needed."""

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.stopped: set[int] = set()
        """Numbers of the processes that were stopped."""

    def start(self, folder: Path, *, on_ray: bool) -> "subprocess.Popen[bytes]":
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        env.pop("RAY_ADDRESS", None)
        if on_ray:
            if self.cluster is None:
                head = {"num_cpus": 1, "_system_config": _CHECKS}
                self.cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
                for _ in range(3):
                    self.cluster.add_node(num_cpus=1)
            env = env_of_driver(self.cluster.address)
        command = [sys.executable, "-m", "jobs.train", *_FLAGS, "--storage", str(folder), *(_ON_RAY if on_ray else [])]
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def whole(self, folder: Path, *, on_ray: bool) -> RunDirectory:
        """An undisturbed run, or the rest of one."""
        run = self.start(folder, on_ray=on_ray)
        _, errors = run.communicate()
        if run.returncode != 0:
            raise RuntimeError(errors.decode())
        return RunDirectory.of(str(folder), "chaos")

    def kill(self, kind: str, run: "subprocess.Popen[bytes]", chance: random.Random) -> None:
        """Kill the target named by `kind`."""
        if kind in ("process", "driver"):
            run.kill()
        elif kind == "worker":
            chance.choice(train_workers()).kill()
        elif kind == "hang":
            victim = chance.choice(train_workers())
            victim.suspend()
            self.stopped.add(victim.pid)
        elif self.cluster is not None:
            # Not the head: that has the cluster's own state.
            node = chance.choice(sorted(self.cluster.worker_nodes, key=lambda node: str(node.unique_id)))
            self.cluster.remove_node(node, allow_graceful=False)
            self.cluster.add_node(num_cpus=1)


def _wait_for(step: int, folder: Path, run: "subprocess.Popen[bytes]") -> bool:
    metrics = folder / "chaos" / "metrics.jsonl"
    while run.poll() is None:
        lines = metrics.read_bytes().splitlines() if metrics.exists() else []
        if len(lines) > 1 and json.loads(lines[-2])["step"] >= step:
            return True
        time.sleep(_POLL_S)
    return False


def _equal(one: RunDirectory, other: RunDirectory) -> bool:
    digests = [(run.read_json("result.json") or {}).get("rows_digest") for run in (one, other)]
    weights = [Checkpoint.load(run, run.checkpoint_step("last")).weights for run in (one, other)]
    return digests[0] == digests[1] and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def _killed_and_equal(
    runs: _Runs, folder: Path, kinds: list[str], undisturbed: RunDirectory, chance: random.Random
) -> bool:
    """Kill one run in these ways, one after the other, at random steps; returns whether it ends equal."""
    on_ray, began = kinds != ["process"] * len(kinds), time.perf_counter()
    run = runs.start(folder, on_ray=on_ray)
    killed_at: list[float] = []
    for kind, step in zip(kinds, sorted(chance.sample(range(11, _STEPS - 60), len(kinds))), strict=True):
        if not _wait_for(step, folder, run):
            print(f"it ended before step {step}: {run.communicate()[1].decode()}", file=sys.stderr)
            return False
        runs.kill(kind, run, chance)
        killed_at.append(time.time())
        if kind in ("process", "driver"):
            run.communicate()
            run = runs.start(folder, on_ray=on_ray)
        print(f"  {kind} at step {step}, {time.perf_counter() - began:.0f} s", flush=True)
    _, errors = run.communicate()
    if run.returncode != 0:
        print(errors.decode(), file=sys.stderr)
        return False
    ended = RunDirectory.of(str(folder), "chaos")
    for event in ended.events():
        if event["what"] == "hang":
            named = {int(pid) for pid in re.findall(r"\(process (\d+)\) hangs", event["error"])}
            print(f"  {'named rightly' if named and named <= runs.stopped else 'NAMED WRONGLY'}: {event['error']}")
        if event["what"] == "restarted":
            noticed = event["time"] - sum(event["seconds"].values())
            killed = max((at for at in killed_at if at <= noticed), default=noticed)
            parts = {"detection": noticed - killed, **event["seconds"]}
            each = ", ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items())
            print(f"  {event['time'] - killed:.1f} s to step {event['step']}: {each}", flush=True)
    print(f"  goodput {(ended.read_json('result.json') or {}).get('goodput')}", flush=True)
    return _equal(ended, undisturbed)


def main() -> None:
    """Kill, and print how each run ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-a-run", type=int, default=5)
    kinds = ["process", "driver", "worker", "node", "hang"]
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after so many")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    runs, chance, began = _Runs(), random.Random(options.seed), time.monotonic()
    in_turn = [options.kinds[number % len(options.kinds)] for number in range(options.kills)]
    undisturbed: dict[bool, RunDirectory] = {}
    equal, ended = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        try:
            for on_ray in (False, True):
                of_these = [kind for kind in in_turn if (kind != "process") == on_ray]
                for number, first in enumerate(range(0, len(of_these), options.kills_a_run)):
                    if time.monotonic() - began > 60 * options.minutes:
                        break
                    if on_ray not in undisturbed:
                        undisturbed[on_ray] = runs.whole(Path(scratch, f"undisturbed-{on_ray}"), on_ray=on_ray)
                    kinds = of_these[first : first + options.kills_a_run]
                    folder = Path(scratch, f"{on_ray}-{number}")
                    same = _killed_and_equal(runs, folder, kinds, undisturbed[on_ray], chance)
                    print(
                        f"run {number + 1} {'on Ray' if on_ray else 'in a process'}: {'equal' if same else 'OTHER'}",
                        flush=True,
                    )
                    ended.update(["runs", *kinds])
                    equal.update(["runs", *kinds] if same else [])
        finally:
            if runs.cluster is not None:
                runs.cluster.shutdown()
    for name, count in ended.items():
        what = "runs ended equal" if name == "runs" else f"kills of a {name} were in runs that ended equal"
        print(f"{equal[name]} of {count} {what}")


if __name__ == "__main__":
    main()
