"""Sweeps: packed, and one trial after another in the loop that people write, as whole commands in one run.

    python -m bench.sweeps [--trials 64 256] [--data-root DIR] [--rounds 1] [--no-ray]

The space `optimizers`, and 16 trials of `digits` and of LeNet on CIFAR-10 in batches of 4, 32 and 128. Both loops take
equally many steps and evaluations on the same trials: four optimizers at random learning rates. `pack` is the stack
alone, `blitz tune` the command with all that it writes, and `Ray Tune` that command with a process for each trial on a
local Ray: of 16 trials, because it takes long, so that its ratio is of trials an hour. Seconds are from the shell to
the end of the command; CPU seconds are those of all its processes, which other work on the machine does not change as
much. Where a ratio is below 1, packing loses.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Datasets, Shares, Split
from blitz.data.torchvision_images import VisionData
from blitz.launch.job import row_bytes_of
from blitz.launch.local.loader import Loader
from blitz.optim import Optim
from blitz.recipe import Recipe
from blitz.recipes.cifar10 import Cifar10
from blitz.recipes.digits import Digits
from blitz.recipes.parabola import Parabola
from blitz.training.packed import LaneEnd, PackJob, train_pack
from blitz.training.world import World

_KINDS = (Optim("sgd"), Optim("momentum", momentum=0.8), Optim("rmsprop", alpha=0.9), Optim("adam", betas=(0.9, 0.99)))
_LANES = 16
_LENET_STEPS = 100


def recipe_of(task: str, root: str) -> Recipe:
    """`parabola`, `digits`, or `lenet-<batch size>`."""
    if task.startswith("lenet"):
        size, data = int(task.partition("-")[2]), VisionData(root=root)
        return Cifar10(global_batch_size=size, max_steps=_LENET_STEPS, max_eval_rows=1000, data=data)
    return Digits(epochs=5) if task == "digits" else Parabola()


def trials_of(recipe: Recipe, count: int) -> list[Recipe]:
    """The same trials for every loop."""
    draws = random.Random(0)
    return [replace(recipe, optim=replace(_KINDS[n % 4], lr=10 ** draws.uniform(-4, -1))) for n in range(count)]


class _Deaf:
    """A listener that ignores everything."""

    def step(self, number: int, lanes: int) -> None:
        """Does nothing."""

    def line(self, lane: int, values: Mapping[str, float]) -> None:
        """Does nothing."""

    def lane_ended(self, lane: int, end: LaneEnd) -> None:
        """Does nothing."""


def pack(trials: list[Recipe]) -> None:
    """All trials as one stack."""
    recipe = trials[0]
    datasets: Datasets = {"train": recipe.dataset("train"), "val": recipe.dataset("val")}
    plan = recipe.plan(len(datasets["train"]), len(datasets["val"]))
    row_bytes = row_bytes_of(datasets)
    loader = Loader(datasets, Shares.of(plan, world_size=1, row_bytes=row_bytes), row_bytes)
    blocks = loader.fetched(loader.shares.chunks(0), workers=0)
    train_pack(PackJob(tuple(trials), plan), blocks, world=World(0, 1, torch.device("cpu")), listener=_Deaf())


def plain(trials: list[Recipe]) -> None:
    """The loop that people write, for one trial after another: tensors in memory, torch's optimizers as they come."""
    recipe = trials[0]
    train, val = _tensors(recipe, "train"), _tensors(recipe, "val")
    plan = recipe.plan(len(train["targets"]), len(val["targets"]))
    for trial in trials:
        torch.manual_seed(0)
        model = trial.build_model()
        optimizer = _optimizer(trial.optim, model)
        batches = _batches(train, trial.global_batch_size)
        for step in range(1, plan.total_steps + 1):
            batch = next(batches)
            loss = trial.loss(trial.forward(model, batch), batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if plan.evaluates_after(step):
                with torch.no_grad():
                    rows = {name: column[: plan.eval_rows] for name, column in val.items()}
                    outputs = trial.forward(model, rows)
                    trial.metrics().compute(trial.metrics().sums(outputs, rows))


def _tensors(recipe: Recipe, split: Split) -> dict[str, torch.Tensor]:
    dataset = recipe.dataset(split)
    assert isinstance(dataset, ArrayDataset)
    return dict(recipe.preprocess({name: torch.from_numpy(column) for name, column in dataset.columns.items()}))


def _batches(columns: dict[str, torch.Tensor], size: int) -> Iterator[dict[str, torch.Tensor]]:
    while True:
        for rows in torch.randperm(len(columns["targets"])).split(size):
            yield {name: column[rows] for name, column in columns.items()}


def _optimizer(settings: Optim, model: nn.Module) -> torch.optim.Optimizer:
    match settings.name:
        case "rmsprop":
            return torch.optim.RMSprop(model.parameters(), lr=settings.lr, alpha=settings.alpha)
        case "adam":
            return torch.optim.Adam(model.parameters(), lr=settings.lr, betas=settings.betas)
    return torch.optim.SGD(model.parameters(), lr=settings.lr, momentum=settings.momentum or 0.0)


@dataclass(frozen=True)
class Cost:
    """The cost of a whole command."""

    seconds: float
    cpu_seconds: float


def cost_of(words: list[str], **environment: str) -> Cost:
    """Run it to its end. The processes of a Ray that it starts are not its children, and their CPU seconds not known.

    Raises:
        RuntimeError: if it fails.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **environment})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} left with exit code {process.returncode}")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime)


def ray_tune_seconds(trials: int, folder: Path) -> float:
    """The cost of `trials` trials of the space `optimizers` under Ray Tune, each in its process, one a CPU."""
    flags = ["--num-trials", str(trials), "--packed", "no", "--storage", str(folder)]
    return cost_of(["jobs.tune", "optimizers", *flags], RAY_ADDRESS="local").seconds


def compare(task: str, trials: int, root: str, rounds: int, *, ray: bool) -> None:
    """Print what each way costs, and the ratios to the plain loop."""
    mine = ["bench.sweeps", "--data-root", root, "--trials", str(trials), "--only"]
    commands = {"plain loop": [*mine, f"plain:{task}"], "pack": [*mine, f"pack:{task}"]}
    costs: dict[str, list[Cost]] = {}
    with_ray: list[float] = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            if task == "parabola":
                flags = ["--num-trials", str(trials), "--storage", str(Path(folder) / str(number))]
                commands["blitz tune"] = ["jobs.tune", "optimizers", *flags, "--scale.num-workers", "0"]
            for name, words in commands.items():
                costs.setdefault(name, []).append(cost_of(words))
            if task == "parabola" and ray:
                with_ray.append(ray_tune_seconds(_LANES, Path(folder)))
    print(f"\n{task}, {trials} trials, {rounds} rounds; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for name, found in costs.items():
        seconds, cpu = (statistics.median(getattr(one, unit) for one in found) for unit in ("seconds", "cpu_seconds"))
        pairs = list(zip(costs["plain loop"], found, strict=True))
        ratio = statistics.median(base.seconds / one.seconds for base, one in pairs)
        cpu_ratio = statistics.median(base.cpu_seconds / one.cpu_seconds for base, one in pairs)
        print(f"  {name:12} {seconds:8.1f} s {cpu:8.1f} CPU s   {ratio:6.2f} times as fast, by CPU {cpu_ratio:.2f}")
    if with_ray:
        seconds = statistics.median(with_ray)
        ratio = statistics.median(
            (trials / one.seconds) / (_LANES / each) for one, each in zip(costs["blitz tune"], with_ray, strict=True)
        )
        remark = f"for {_LANES} trials; blitz tune has {ratio:.1f} times its trials an hour"
        print(f"  {'Ray Tune':12} {seconds:8.1f} s {remark}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=["parabola", "digits", "lenet-4", "lenet-32", "lenet-128"])
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        way, _, task = arguments.only.partition(":")
        trials = trials_of(recipe_of(task, arguments.data_root), arguments.trials[0])
        (pack if way == "pack" else plain)(trials)
        return
    for task in arguments.tasks:
        for count in arguments.trials if task == "parabola" else [_LANES]:
            compare(task, count, arguments.data_root, arguments.rounds, ray=not arguments.no_ray)


if __name__ == "__main__":
    main()
