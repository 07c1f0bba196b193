"""CIFAR-10 and MNIST, as torchvision reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.errors import DataError


@dataclass(frozen=True)
class VisionData:
    """The location of torchvision's files."""

    root: str = "data"
    """Folder as torchvision's `root`."""
    download: bool = False
    """Download the files into `root` if they are missing."""


def cifar10(data: VisionData, split: Split) -> ArrayDataset:
    """`inputs` uint8 of shape (rows, 3, 32, 32) and `targets` int64 of shape (rows,): 50,000 rows, 10,000 in `val`.

    `val` is the official test set.

    Raises:
        DataError: if the files are missing or damaged.
    """
    images, labels = _read("CIFAR10", data, split, holds="cifar-10-batches-py")
    # torchvision gives a transposed view; transposing it back costs nothing and leaves every image contiguous.
    return ArrayDataset(inputs=images.transpose(0, 3, 1, 2), targets=labels)


def mnist(data: VisionData, split: Split) -> ArrayDataset:
    """`inputs` uint8 of shape (rows, 1, 28, 28) and `targets` int64 of shape (rows,): 60,000 rows, 10,000 in `val`.

    `val` is the official test set.

    Raises:
        DataError: if the files are missing or damaged.
    """
    images, labels = _read("MNIST", data, split, holds="MNIST/raw")
    return ArrayDataset(inputs=images[:, None], targets=labels)


def _read(name: str, data: VisionData, split: Split, *, holds: str) -> tuple[Any, Any]:
    # Imported here, because it takes seconds and the workers of a run, which receive the rows, do not need it.
    import torchvision

    dataset = getattr(torchvision.datasets, name)
    root = Path(data.root).expanduser().resolve()
    try:
        if data.download:
            # One download a node: a second process waits here, and then finds the files.
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f".{name}.lock"):
                read = dataset(root=root, train=split == "train", download=True)
        else:
            read = dataset(root=root, train=split == "train")
    except (RuntimeError, OSError) as error:
        if data.download:
            raise DataError(f"{name} could not be downloaded to {root}: {error}") from error
        raise DataError(
            f"{name} is not in {root}, or is damaged: it must hold {holds}; "
            "name the folder with --data.root DIR, or add --data.download"
        ) from error
    return np.asarray(read.data), np.asarray(read.targets, dtype=np.int64)
