"""The cost of Ray Train compared with torchrun: the same loop, recipe, rows and number of workers on this machine.

    python -m bench.ray_overhead [--workers 2] [--steps 1500] [--rounds 3]

LeNet on random pictures of 32 × 32 in memory, with gloo. The two take turns. Steps a second are the median of those
after the first third of a run, as metrics.jsonl has them; the first step is that after which the loop starts, counted
from the start of the command. Ray is a local one that is started with the run, as `blitz train` does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench.pictures_run import Pictures
from blitz.run_files.directory import RunDirectory


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Steps a second after warm-up, and seconds to the first step."""
    began = time.time()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env.pop("RAY_ADDRESS", None)
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = [line for line in RunDirectory.of(str(folder)).metrics() if "train/loss" in line]
    rates = [line["examples_per_second"] for line in lines[len(lines) // 3 :]]
    first = EventAccumulator(str(folder)).Reload().FirstEventTimestamp()
    return statistics.median(rates) / Pictures().global_batch_size, first - began


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--nproc-per-node", str(options.workers), "-m"]
    found: dict[str, list[tuple[float, float]]] = {"torchrun": [], "Ray Train": []}
    with tempfile.TemporaryDirectory(prefix="ray-overhead-") as scratch:
        for number in range(options.rounds):
            for name, measured in found.items():
                folder = Path(scratch, f"{name}-{number}".replace(" ", "-"))
                folder.mkdir()
                words = ["bench.pictures_run", str(folder), str(options.steps)]
                on_ray = [sys.executable, "-m", *words, str(options.workers)]
                measured.append(measure(on_ray if name == "Ray Train" else [*torchrun, *words], folder))
                rate, first = measured[-1]
                print(f"{name:10} {rate:7.1f} steps a second, the first after {first:5.1f} s", flush=True)
    pairs = list(zip(*found.values(), strict=True))
    rates = statistics.median(ray[0] / alone[0] for alone, ray in pairs)
    firsts = statistics.median(ray[1] / alone[1] for alone, ray in pairs)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"Ray Train to torchrun: {rates:.3f} × the steps a second, {firsts:.2f} × the time to the first step")
    print(f"{options.workers} workers, {os.cpu_count()} cores, load {load}, medians of {options.rounds} rounds")


if __name__ == "__main__":
    main()
