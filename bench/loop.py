"""The cost of a training step, compared with the loops that people write, all in one run.

    python -m bench.loop --data-root DIR [--steps 1000] [--rounds 5] [--batch-sizes 4 64]

LeNet on CIFAR-10 with momentum SGD, in this process. The floor is the plain loop with all images in memory, already
normalised, and no loader, log, checkpoint or progress bar. Rounds take turns, so that a busy machine is busy for all;
each number is the median over rounds, and ratios are of the same round. Lightning and Accelerate are measured where
they are installed. Time to the first step is from the shell: imports, reading the data, and one optimizer step.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms

from blitz.data.torchvision_images import VisionData
from blitz.launch.launch import launch
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.models.lenet5 import LeNet
from blitz.recipes.cifar10 import Cifar10
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import TrainJob

Loop = Callable[[int, int], float]
"""(batch size, steps) → seconds."""


class Loops:
    """The loops to compare, all on the same data."""

    def __init__(self, root: str) -> None:
        self.recipe = Cifar10(data=VisionData(root=root))
        self.dataset: Any = self.recipe.dataset("train")
        images = torch.from_numpy(self.dataset.columns["inputs"]).float().div_(127.5).sub_(1)
        self.in_memory = TensorDataset(images, torch.from_numpy(self.dataset.columns["targets"]))
        per_image = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
        self.per_image = torchvision.datasets.CIFAR10(root, train=True, transform=per_image)

    def floor(self, batch_size: int, steps: int) -> float:
        """The plain loop over slices of shuffled tensors."""
        images, labels = self.in_memory.tensors
        order = torch.randperm(len(images))[: steps * batch_size]
        batches = zip(images[order].split(batch_size), labels[order].split(batch_size), strict=True)
        return _plain(batches, steps)

    def blitz(self, batch_size: int, steps: int) -> float:
        """This project's loop, with its loader, log, progress bar and last checkpoint; without evaluation."""
        recipe = Cifar10(global_batch_size=batch_size, max_steps=steps, data=self.recipe.data)
        with tempfile.TemporaryDirectory() as folder:
            run = RunDirectory.of(folder, "run")
            run.probe()
            job = TrainJob(recipe, recipe.plan(len(self.dataset), 0), run)
            started = time.perf_counter()
            launch(job, {"train": self.dataset}, Placement(Scale(num_workers=0, use_gpu="no")))
            return time.perf_counter() - started

    def dataloader(self, batch_size: int, steps: int, *, num_workers: int) -> float:
        """`DataLoader` over torchvision's data set, transformed image by image."""
        loader = DataLoader(self.per_image, batch_size=batch_size, shuffle=True, num_workers=num_workers)
        return _plain(iter(loader), steps)

    def lightning(self, batch_size: int, steps: int) -> float:
        """Lightning's Trainer over the tensors in memory."""
        import lightning

        class Module(lightning.LightningModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.net = LeNet()

            def training_step(self, batch: list[Tensor], _: int) -> Tensor:
                return F.cross_entropy(self.net(batch[0]), batch[1])

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameters(), lr=0.001, momentum=0.9)

        trainer = lightning.Trainer(
            max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        loader = DataLoader(self.in_memory, batch_size=batch_size, shuffle=True)
        started = time.perf_counter()
        trainer.fit(Module(), loader)
        return time.perf_counter() - started

    def accelerate(self, batch_size: int, steps: int) -> float:
        """Accelerate's prepared loop over the tensors in memory."""
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        model = LeNet()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
        loader = DataLoader(self.in_memory, batch_size=batch_size, shuffle=True)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        batches = iter(loader)
        started = time.perf_counter()
        for _ in range(steps):
            images, labels = next(batches)
            optimizer.zero_grad()
            accelerator.backward(F.cross_entropy(model(images), labels))
            optimizer.step()
        return time.perf_counter() - started


def _plain(batches: Iterator[Any], steps: int) -> float:
    model: nn.Module = LeNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    started = time.perf_counter()
    for _ in range(steps):
        images, labels = next(batches)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def compare_steps(root: str, batch_sizes: list[int], steps: int, rounds: int) -> None:
    """Print microseconds a step of each loop, and its ratio to the floor."""
    loops = Loops(root)
    contenders: dict[str, Loop] = {
        "floor: tensors in memory": loops.floor,
        "blitz": loops.blitz,
        "DataLoader, per image, 0 workers": lambda size, count: loops.dataloader(size, count, num_workers=0),
        "DataLoader, per image, 2 workers": lambda size, count: loops.dataloader(size, count, num_workers=2),
    }
    contenders |= {
        name: loop
        for name, loop in (("lightning", loops.lightning), ("accelerate", loops.accelerate))
        if find_spec(name)
    }
    for batch_size in batch_sizes:
        count = min(steps, 50_000 // batch_size)
        for loop in contenders.values():  # to warm up
            loop(batch_size, min(count, 50))
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, loop in contenders.items():
                taken[name].append(loop(batch_size, count) / count * 1e6)
        floor = taken["floor: tensors in memory"]
        print(f"\nbatch {batch_size}, {count} steps, {rounds} rounds, {torch.get_num_threads()} threads")
        for name, times in taken.items():
            ratios = [time / base for time, base in zip(times, floor, strict=True)]
            median, least, most = statistics.median(ratios), min(ratios), max(ratios)
            print(f"  {name:34} {statistics.median(times):8.0f} µs   {median:.3f} × ({least:.3f} to {most:.3f})")


_PLAIN_SCRIPT = """
import sys, torch, torchvision
from torch import nn
from torchvision import transforms
import torch.nn.functional as F

normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
trainset = torchvision.datasets.CIFAR10(sys.argv[1], train=True, transform=normalise)
testset = torchvision.datasets.CIFAR10(sys.argv[1], train=False, transform=normalise)
trainloader = torch.utils.data.DataLoader(trainset, batch_size=4, shuffle=True, num_workers=2)
testloader = torch.utils.data.DataLoader(testset, batch_size=4, shuffle=False, num_workers=2)
net = nn.Sequential(
    nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
)
optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
inputs, labels = next(iter(trainloader))
loss = F.cross_entropy(net(inputs), labels)
loss.backward()
optimizer.step()
print("first step", flush=True)
"""


def compare_first_steps(root: str, rounds: int) -> None:
    """Print seconds from the shell to the end of the first step, of the plain script and of this project."""
    plain, ours = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            script = [sys.executable, "-c", _PLAIN_SCRIPT, root]
            plain.append(_seconds_until(script, lambda process: process.stdout.readline() != ""))
            log = Path(folder) / "run" / "metrics.jsonl"
            flags = ["--data.root", root, "--storage", folder, "--run", "run", "--log-every-steps", "1"]
            command = [sys.executable, "-m", "jobs.train", "cifar10", *flags, "--scale.num-workers", "0"]
            ours.append(_seconds_until(command, partial(_wait_for_first_line, log)))
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    print(f"\ntime to the first step, {rounds} rounds")
    print(f"  plain script {statistics.median(plain):.2f} s, blitz {statistics.median(ours):.2f} s", end="")
    print(f"   {statistics.median(ratios):.3f} × ({min(ratios):.3f} to {max(ratios):.3f})")


def _seconds_until(command: list[str], reached: Callable[[Any], bool]) -> float:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert reached(process)
    seconds = time.perf_counter() - started
    process.kill()
    process.communicate()
    return seconds


def _wait_for_first_line(log: Path, process: Any) -> bool:
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n"):
            return bool(json.loads(log.read_text().splitlines()[0])["step"] == 1)
        time.sleep(0.002)
    return False


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 64])
    arguments = parser.parse_args()
    compare_steps(arguments.data_root, arguments.batch_sizes, arguments.steps, arguments.rounds)
    compare_first_steps(arguments.data_root, arguments.rounds)


if __name__ == "__main__":
    main()
