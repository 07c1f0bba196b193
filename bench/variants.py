"""What flags change: a metric of the last step over seeds, with each set of flags, in this process.

    python -m bench.variants RECIPE [--seeds 5] [--metric val/accuracy] [--results FILE] --flags='FLAGS OF ALL' \\
        'NAME: FLAGS' …

Each argument is a variant: its name and the flags that are added. Seed by seed all variants take turns. The rows that
are judged choose nothing: it is the last step that counts, not the best checkpoint. A line gives the mean over seeds,
the lowest and the highest value, the mean difference to the first variant, seed by seed, with the standard error of
that mean, and the CPU seconds of a run. What is in FILE is not run again.
"""

import argparse
import contextlib
import io
import json
import shlex
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from blitz.cli.train import read_settings, train
from blitz.launch.scale import Scale


def measure(recipe: str, flags: str, seed: int, metric: str) -> tuple[float, float]:
    """The metric of a run's last step, and the CPU seconds that it took."""
    words = [recipe, *shlex.split(flags), "--seed", str(seed), "--evaluate-every-steps", "1000000"]
    began = time.process_time()
    with tempfile.TemporaryDirectory() as storage, contextlib.redirect_stdout(io.StringIO()):
        settings = replace(read_settings(words, prog="blitz train"), run="one", storage=storage)
        result = train(replace(settings, scale=Scale(num_workers=0)))
    return float(result["last_metrics"][metric]), time.process_time() - began


def described(name: str, values: list[float], first: list[float], seconds: list[float]) -> str:
    """A line of the table."""
    gains = [value - base for value, base in zip(values, first, strict=True)]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    against = "" if values is first else f"{statistics.mean(gains):+.4f} ± {error:.4f}"
    cells = f"{statistics.mean(values):.4f}  {min(values):.4f} to {max(values):.4f}  {against:18}"
    return f"{name:28} {cells} {statistics.mean(seconds):6.0f} s"


def main() -> None:
    """Parse the command line, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--flags", default="")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--metric", default="val/accuracy")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    variants = {name.strip(): flags for name, _, flags in (one.partition(":") for one in options.variants)}
    found: dict[str, tuple[float, float]] = {}
    if options.results is not None and options.results.exists():
        found = dict(map(json.loads, options.results.read_text().splitlines()))
    values: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for seed in range(options.seeds):
        for name, flags in variants.items():
            key = f"{options.recipe} {options.flags} {flags} {seed}"
            if key not in found:
                found[key] = measure(options.recipe, f"{options.flags} {flags}", seed, options.metric)
                if options.results is not None:
                    with options.results.open("a") as file:
                        file.write(json.dumps([key, found[key]]) + "\n")
                print(f"seed {seed}  {name}: {found[key][0]:.4f}, {found[key][1]:.0f} s", flush=True)
            values[name].append(found[key])
    first, *_ = ([value for value, _ in each] for each in values.values())
    for name, each in values.items():
        mine = [value for value, _ in each]
        print(described(name, first if mine == first else mine, first, [seconds for _, seconds in each]))


if __name__ == "__main__":
    main()
