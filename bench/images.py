"""Rows a second of JPEGs decoded and resized to 224 pixels, compared with alternatives, all in one run.

    python -m bench.images --photos DIR [--folder DIR] [--images 4000] [--rounds 5] [--no-ray]

The images are made from the JPEGs under DIR/<class>/, about 500 × 400 pixels, with a CSV that names them. They are read
by this project's loader with each number of processes and with `auto`, by torchvision's `ImageFolder` in a `DataLoader`
with as many, and by the floor: a bare pool of processes that decodes in the same way and delivers nothing. On Ray: this
project's stream through Ray Data, and `ray.data.read_images`. Rounds take turns, so that a busy machine is busy for
all; each number is the median over rounds, and ratios are of the same round.
"""

import argparse
import csv
import logging
import multiprocessing
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from blitz.data.csv.image_dataset import CsvImages
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.images import decode_image
from blitz.data.plan import Plan, Shares
from blitz.launch.job import row_bytes_of
from blitz.launch.local.loader import Loader
from blitz.recipes.image_csv import ImageCsv

_SIDE = 224
_BATCH = 64
_CPUS = len(os.sched_getaffinity(0))

Rates = dict[str, list[float]]


def make_images(photos: Path, folder: Path, count: int) -> Path:
    """Images of 460 to 540 by 370 to 430 pixels in folders by class, and a CSV of them; the same each time."""
    sources = sorted(photos.glob("**/*.jpg"))
    if not sources:
        raise SystemExit(f"{photos} has no JPEGs to make images from")
    rng, rows = random.Random(0), []
    for number in range(count):
        source = sources[number % len(sources)]
        name, size = f"{source.parent.name}/{number:05}.jpg", (rng.randint(460, 540), rng.randint(370, 430))
        (folder / source.parent.name).mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            Image.open(source).convert("RGB").resize(size, Image.Resampling.BICUBIC).save(folder / name, quality=90)
        rows.append((name, source.parent.name))
    table = folder / "images.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    return table


class Here:
    """The loaders to compare in this process: each takes a number of processes, and returns rows a second."""

    def __init__(self, table: Path, cache: str) -> None:
        data = ImageCsvData(train_csv=str(table), cache=cache, size=_SIDE, resize=_SIDE)
        self.dataset: CsvImages = ImageCsv(data=data).fitted().dataset("train")
        self.row_bytes = row_bytes_of({"train": self.dataset})
        self.folder = ImageFolder(
            str(table.parent),
            transforms.Compose([transforms.Resize(_SIDE), transforms.CenterCrop(_SIDE), transforms.PILToTensor()]),
        )
        self.paths = [path for path, _ in self.folder.samples]

    def plan(self, epochs: int) -> Plan:
        """`passes` passes over all images."""
        rows = len(self.dataset)
        steps = epochs * -(-rows // _BATCH)
        return Plan(rows, 0, _BATCH, total_steps=steps, evaluate_every_steps=steps, seed=0)

    def loader(self, epochs: int = 1) -> Loader:
        """This project's rows, for some passes."""
        shares = Shares.of(self.plan(epochs), world_size=1, row_bytes=self.row_bytes)
        return Loader({"train": self.dataset}, shares, self.row_bytes)

    def floor(self, processes: int) -> float:
        """A pool that decodes each file and delivers nothing."""
        began = time.perf_counter()
        # Forked, as DataLoader's processes are.
        with multiprocessing.get_context("fork").Pool(processes, torch.set_num_threads, (1,)) as pool:
            rows = sum(pool.imap_unordered(_decode, self.paths, chunksize=32))
        return rows / (time.perf_counter() - began)

    def blitz(self, processes: int) -> float:
        """This project's loader."""
        loader = self.loader()
        began = time.perf_counter()
        rows = sum(int(block.weights.sum()) for block in loader.fetched(loader.shares.chunks(0), processes))
        return rows / (time.perf_counter() - began)

    def image_folder(self, processes: int) -> float:
        """torchvision's data set, image by image, in batches of uint8."""
        loader = DataLoader(self.folder, batch_size=_BATCH, shuffle=True, num_workers=processes)
        began = time.perf_counter()
        rows = sum(len(labels) for _, labels in loader)
        return rows / (time.perf_counter() - began)


def _decode(path: str) -> int:
    with open(path, "rb") as file:
        decode_image(file.read(), _SIDE, "crop")
    return 1


def compare_here(here: Here, rounds: int, epochs: int) -> None:
    """Print rows a second for each number of processes, ratios to the floor, and what `auto` chose."""
    numbers = range(_CPUS + 3)
    contenders: dict[str, Callable[[int], float]] = {
        "floor": here.floor,
        "blitz": here.blitz,
        "ImageFolder": here.image_folder,
    }
    # PyTorch warns about more processes than CPUs, which are wanted here.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    taken: dict[str, list[dict[int, float]]] = {name: [] for name in contenders}
    chosen: list[int] = []
    here.blitz(0)  # to warm up, and to have the files in memory
    for _ in range(rounds):
        began = time.perf_counter()
        workers, why = here.loader(epochs).best_workers(0)
        print(f"auto, in {time.perf_counter() - began:.1f} s: {workers} ({why})", flush=True)
        chosen.append(workers)
        rates: dict[str, dict[int, float]] = {name: {} for name in contenders}
        # By number and then by contender: those that are compared are neighbours in time.
        for number in numbers:
            for name, rate in contenders.items():
                if number or name != "floor":
                    rates[name][number] = rate(number)
        for name, each in rates.items():
            taken[name].append(each)
    print(f"\n{len(here.paths)} images, rows a second by number of processes, medians of {rounds} rounds")
    medians: dict[str, dict[int, float]] = {}
    for name, rounds_of in taken.items():
        medians[name] = {number: statistics.median(one[number] for one in rounds_of) for number in rounds_of[0]}
        print(f"  {name:12}", *(f"{number}: {rate:5.0f}  " for number, rate in medians[name].items()))
    print("with the best number of each")
    best = {name: max(found, key=found.__getitem__) for name, found in medians.items()}
    floors = taken["floor"]
    for name, number in best.items():
        ratios = [one[number] / floor[best["floor"]] for one, floor in zip(taken[name], floors, strict=True)]
        print(f"  {name:12} {medians[name][number]:5.0f} with {number}   {_spread(ratios)} the floor")
    same = range(1, _CPUS + 1)
    ratios = [one[number] / floor[number] for one, floor in zip(taken["blitz"], floors, strict=True) for number in same]
    print(f"blitz with 1 to {_CPUS} processes: {_spread(ratios)} the floor with as many")
    ours = medians["blitz"]
    ratios = [ours[number] / max(ours.values()) for number in chosen if number in ours]
    print(f"what auto chose ({', '.join(map(str, chosen))}): {_spread(ratios)} the best of 0 to {_CPUS + 2}")


def compare_on_ray(here: Here, table: Path, rounds: int) -> None:
    """Print rows a second after the first batch, and seconds until it is there, on a fresh Ray for each."""
    contenders: Mapping[str, Callable[[], Iterator[int]]] = {
        "blitz": lambda: _stream(here),
        "read_images": lambda: _read_images(table.parent),
    }
    rates: Rates = {name: [] for name in contenders}
    starts: Rates = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            with _ray():
                began = time.perf_counter()
                batches = contender()
                next(batches)
                first = time.perf_counter()
                rates[name].append(sum(batches) / (time.perf_counter() - first))
                starts[name].append(first - began)
    print(f"\non Ray, {_CPUS} CPUs, medians of {rounds} rounds")
    for name in contenders:
        ratios = [one / other for one, other in zip(rates[name], rates["read_images"], strict=True)]
        print(
            f"  {name:12} {statistics.median(rates[name]):5.0f} rows a second   {_spread(ratios)} of read_images",
            end="",
        )
        print(f"   first batch after {statistics.median(starts[name]):.1f} s")


@contextmanager
def _ray() -> Iterator[None]:
    import ray
    import ray.data

    ray.init("local", num_cpus=_CPUS, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _stream(here: Here) -> Iterator[int]:
    """Rows of each block of this project's stream."""
    from blitz.launch.cluster.feeds import feed_of

    feed = feed_of("stream", {"train": here.dataset}, row_bytes=here.row_bytes, task_cpus=1.0)
    blocks = feed.blocks(Shares.of(here.plan(1), world_size=1, row_bytes=here.row_bytes), 0, 0, start=1)
    return (int(block.weights.sum()) for block in blocks)


def _read_images(folder: Path) -> Iterator[int]:
    """Rows of each batch."""
    import ray.data

    dataset = ray.data.read_images(str(folder), size=(_SIDE, _SIDE), mode="RGB", file_extensions=["jpg"])
    return (len(batch["image"]) for batch in dataset.iter_batches(batch_size=_BATCH, batch_format="numpy"))


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} × ({min(ratios):.3f} to {max(ratios):.3f})"


def main() -> None:
    """Make the images, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="where images are made, and stay; by default a temporary folder")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20, help="of the run that auto chooses for")
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        table = make_images(options.photos, options.folder or Path(scratch, "images"), options.images)
        here = Here(table, str(Path(scratch, "cache")))
        load = os.getloadavg()[0]
        print(f"{_CPUS} CPUs, load {load:.1f} at the start; torch {torch.__version__}")
        compare_here(here, options.rounds, options.epochs)
        if options.ray:
            compare_on_ray(here, table, options.rounds)
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
