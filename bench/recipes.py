"""The headline metric of every recipe, the command that gives it, and how long that takes, as a table.

    python -m bench.recipes [RECIPE …] [--data DIR] [--most-minutes M] [--seeds N]

DIR holds CIFAR-10, MNIST and the other files as the tests have them; by default it is what BLITZ_TEST_DATA names. Each
command runs once, in the environment of this one but for RAY_ADDRESS, from the shell to its end, with imports and
evaluations. Beside the time on the clock stands that of the CPUs, which other work on the machine changes less.
With --seeds N each command runs with the seeds 0 to N - 1, and the table has the spread of the metric: the threshold of
a test stays four standard deviations away from the mean.
"""

import argparse
import csv
import gzip
import json
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Headline:
    """The run that stands for a recipe. In its flags, DIR is the folder of the data."""

    recipe: str
    metric: str
    """The name of a metric in result.json."""
    flags: str = ""

    @property
    def command(self) -> str:
        """The command as a user types it."""
        return f"blitz train {self.recipe} {self.flags}".strip()


HEADLINES = (
    Headline("parabola", "val/rmse"),
    Headline("blobs", "val/accuracy"),
    Headline("random_mlp", "val/loss"),
    Headline("dynamic_net", "val/loss"),
    Headline("digits", "val/accuracy"),
    Headline(
        "table_csv",
        "val/accuracy",
        "--data.train-csv DIR/titanic.csv --data.target survived --data.ignore alive --data.val-fraction 0.2",
    ),
    Headline("mnist", "val/accuracy", "--data.root DIR"),
    Headline("lenet", "val/accuracy", "--data.root DIR"),
    Headline("cifar10", "val/accuracy", "--data.root DIR"),
    Headline(
        "image_csv",
        "val/accuracy",
        "--data.train-csv DIR/insects.csv --data.val-csv DIR/insects_val.csv --data.size 128",
    ),
    Headline(
        "finetune",
        "val/accuracy",
        "--data.train-dir DIR/hymenoptera_data/train --data.val-dir DIR/hymenoptera_data/val --data.size 128",
    ),
    Headline("language", "val/perplexity", "--data.root DIR/multi30k"),
    Headline("translate", "val/bleu", "--data.root DIR/multi30k"),
)


def lay_out(data: Path, folder: Path) -> None:
    """Make in `folder` what the commands expect to find: MNIST unpacked, and CSVs of images."""
    (folder / "MNIST" / "raw").mkdir(parents=True)
    for packed in (data / "MNIST" / "raw").glob("*.gz"):
        with gzip.open(packed) as source, (folder / "MNIST" / "raw" / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    for name in ("cifar-10-batches-py", "hymenoptera_data", "multi30k", "tabular/titanic.csv"):
        (folder / Path(name).name).symlink_to(data.resolve() / name)
    for split, name in (("train", "insects.csv"), ("val", "insects_val.csv")):
        files = sorted((data.resolve() / "hymenoptera_data" / split).glob("*/*.jpg"))
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("file", "insect"), *((str(one), one.parent.name) for one in files)])


@dataclass(frozen=True)
class Measured:
    """The measurement of a headline."""

    value: float
    seconds: float
    cpu_seconds: float


def measure(headline: Headline, folder: Path, most_seconds: float, flags: Sequence[str] = ()) -> Measured | str:
    """Run a headline's command with further flags; returns the measurement, or why there is none."""
    words = [*shlex.split(headline.flags.replace("DIR", str(folder))), *flags]
    command = [sys.executable, "-m", "jobs.train", headline.recipe, *words]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    began, cpu_began = time.perf_counter(), _cpu_seconds()
    with tempfile.TemporaryDirectory() as storage:
        try:
            subprocess.run(
                [*command, "--storage", storage, "--run", "one"],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
                cwd=storage,  # where what is prepared of CSVs may lie
                timeout=most_seconds,
            )
        except subprocess.TimeoutExpired:
            return f"not within {most_seconds / 60:g} minutes"
        except subprocess.CalledProcessError as error:
            return str(error.stderr.strip().splitlines()[-1])
        seconds, cpu_seconds = time.perf_counter() - began, _cpu_seconds() - cpu_began
        result = json.loads(Path(storage, "one", "result.json").read_text())
    return Measured(result["metrics"][headline.metric], seconds, cpu_seconds)


def _cpu_seconds() -> float:
    """CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cells(headline: Headline, found: Measured) -> list[str]:
    name, value = headline.metric.partition("/")[2], found.value
    if name == "accuracy":
        metric = f"accuracy {100 * value:.1f} %"
    else:
        metric = f"{name} {value:.4g}" if value >= 0.001 else f"{name} {value:.1e}"
    return [metric, f"{found.seconds:.0f} s", f"{found.cpu_seconds:.0f} s"]


def spread(headline: Headline, folder: Path, most_seconds: float, seeds: int) -> list[str]:
    """The cells of a headline's row: lowest, mean and highest value over seeds, and their standard deviation."""
    values = []
    for seed in range(seeds):
        found = measure(headline, folder, most_seconds, ["--seed", str(seed)])
        if isinstance(found, str):
            return [headline.metric, f"seed {seed}: {found}", "", "", ""]
        values.append(found.value)
    numbers = (min(values), statistics.mean(values), max(values), statistics.stdev(values))
    return [headline.metric, *(f"{number:.4g}" for number in numbers)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [headline.recipe for headline in HEADLINES]
    parser.add_argument("recipes", nargs="*", help=f"of {', '.join(names)}; by default all")
    parser.add_argument("--data", type=Path, default=os.environ.get("BLITZ_TEST_DATA"))
    parser.add_argument("--most-minutes", type=float, default=30, help="a command that takes longer is ended")
    parser.add_argument("--seeds", type=int, default=1, help="more than 1: the spread over so many seeds")
    options = parser.parse_args()
    if options.data is None:
        parser.error("say where the data lie: --data DIR, or BLITZ_TEST_DATA")
    if unknown := set(options.recipes) - set(names):
        parser.error(f"there is no headline of {', '.join(sorted(unknown))}")
    cpus = len(os.sched_getaffinity(0))
    print(f"{cpus} CPUs, load {os.getloadavg()[0]:.1f} at the start; torch {torch.__version__}\n", flush=True)
    if options.seeds > 1:
        columns = ["lowest", "mean", "highest", "standard deviation"]
    else:
        columns = ["command", f"time on {cpus} CPUs", "CPU time"]
    print(f"| {' | '.join(['recipe', 'metric', *columns])} |\n|{'---|' * (2 + len(columns))}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lay_out(options.data, folder)
        for headline in HEADLINES:
            if options.recipes and headline.recipe not in options.recipes:
                continue
            if options.seeds > 1:
                row = spread(headline, folder, options.most_minutes * 60, options.seeds)
                print(f"| {' | '.join([f'`{headline.recipe}`', *row])} |", flush=True)
                continue
            found = measure(headline, folder, options.most_minutes * 60)
            row = [found, "", ""] if isinstance(found, str) else _cells(headline, found)
            cells = [f"`{headline.recipe}`", row[0], f"`{headline.command}`", *row[1:]]
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
