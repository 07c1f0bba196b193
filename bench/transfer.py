"""Transfer learning from five classes of CIFAR-10 to the other five with few images, and training from scratch.

    python -m bench.transfer --data-root DIR [--folder DIR] [--seeds 3] [--model resnet18]

DIR is what torchvision's CIFAR10 reads. A classifier of torchvision on images of 32 pixels first learns five classes
from `--source-images` of each; then each way to initialise takes the same steps on the same `--target-images` of each
of the other five, and is evaluated on 200 test images of each. A line gives the mean accuracy over seeds, the minimum
and the maximum.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from blitz.api.train_run import TrainSettings
from blitz.cli.train import train
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.plan import Split
from blitz.data.torchvision_images import VisionData, cifar10
from blitz.launch.scale import Scale
from blitz.optim import Optim
from blitz.recipes.cifar10 import CLASSES
from blitz.recipes.finetune import Finetune
from blitz.recipes.image_csv import VisionModel

_FIRST, _OTHERS = (0, 1, 3, 5, 8), (2, 4, 6, 7, 9)
_TEST_IMAGES = 200
_AT_THE_END = 1_000_000


def make_folders(root: str, folder: Path, split: Split, classes: Sequence[int], images: int) -> str:
    """The first images of each class as <folder>/<class>/<row>.png."""
    columns = cifar10(VisionData(root), split).columns
    for number in classes:
        class_folder = folder / CLASSES[number]
        class_folder.mkdir(parents=True, exist_ok=True)
        for row in (columns["targets"] == number).nonzero()[0][:images]:
            Image.fromarray(columns["inputs"][row].transpose(1, 2, 0)).save(class_folder / f"{row:05}.png")
    return str(folder)


def accuracy(recipe: Finetune, storage: Path, run: str) -> float:
    """The accuracy at the end of a run."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = train(TrainSettings(recipe, run=run, storage=str(storage), scale=Scale(num_workers=0)))
    return float(result["metrics"]["val/accuracy"])


def compare(root: str, folder: Path, *, model: VisionModel, seeds: int, source_images: int, target_images: int) -> None:
    """Train the source and all targets, and print a line for each way to initialise."""
    data = ImageCsvData(size=32, loader_workers=0, cache=str(folder / "prepared"))
    source_data, target_data = (
        replace(
            data,
            train_dir=make_folders(root, folder / name / "train", "train", classes, images),
            val_dir=make_folders(root, folder / name / "val", "val", classes, _TEST_IMAGES),
        )
        for name, classes, images in (
            ("source", _FIRST, source_images),
            ("target", _OTHERS, target_images),
        )
    )
    began = time.perf_counter()
    source = Finetune(
        weights=None,
        backbone_lr_factor=1.0,
        model=model,
        epochs=6,
        evaluate_every_steps=_AT_THE_END,
        data=source_data,
        optim=Optim("momentum", 0.05, schedule="cosine"),
    )
    print(f"source: {len(_FIRST)} classes, {accuracy(source, folder, 'source'):.3f}", end="")
    print(f" ({time.perf_counter() - began:.0f} s)", flush=True)
    scratch = Finetune(
        weights=None,
        backbone_lr_factor=1.0,
        model=model,
        epochs=10,
        evaluate_every_steps=_AT_THE_END,
        data=target_data,
        optim=Optim("momentum", 0.02, schedule="cosine"),
    )
    carried = replace(scratch, init_from=str(folder / "source"))
    ways = {
        "from scratch": scratch,
        "all, layers before the head at a tenth": replace(carried, backbone_lr_factor=0.1),
        "the new head alone": replace(carried, freeze="backbone"),
        "the head, and all at a tenth from the middle": replace(
            carried, freeze="backbone", backbone_lr_factor=0.1, unfreeze_after_epochs=5.0
        ),
    }
    for way, recipe in ways.items():
        began = time.perf_counter()
        found = [accuracy(replace(recipe, seed=seed), folder, f"{way}-{seed}") for seed in range(seeds)]
        seconds = (time.perf_counter() - began) / seeds
        print(
            f"{way:46} {statistics.mean(found):.3f}  {min(found):.3f} to {max(found):.3f}  ({seconds:.0f} s a run)",
            flush=True,
        )


def main() -> None:
    """Parse the command line, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--source-images", type=int, default=400)
    parser.add_argument("--target-images", type=int, default=40)
    args = parser.parse_args()
    counts = {"seeds": args.seeds, "source_images": args.source_images, "target_images": args.target_images}
    with tempfile.TemporaryDirectory() as scratch:
        compare(args.data_root, args.folder or Path(scratch), model=VisionModel(args.model), **counts)


if __name__ == "__main__":
    main()
