"""CIFAR-10 and MNIST in miniature: files in the official formats, with few images whose class shows in them.

torchvision checks the MD5s of CIFAR-10's files, which are attributes of its class: they are set to those of these files
while the context lasts.
"""

import gzip
import hashlib
import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torchvision

# More than 1,003, which tests evaluate on.
ROWS = {"train": 1250, "val": 1010}


def _images(split: str, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise on a stripe whose height is the class; uint8 of shape (rows, *shape), and classes."""
    random = np.random.default_rng(split == "val")
    targets = random.permutation(np.arange(ROWS[split]) % 10)
    images = random.integers(0, 100, size=(ROWS[split], *shape))
    for row, target in enumerate(targets):
        images[row, ..., 3 + 2 * target : 6 + 2 * target, :] += 150
    return images.astype(np.uint8), targets


def write_mnist(root: Path, *, packed: bool = False) -> list[tuple[str, str]]:
    """The four files in MNIST/raw, as idx or packed as they are downloaded; their names and MD5s."""
    folder, found = root / "MNIST" / "raw", []
    folder.mkdir(parents=True)
    for split, name in (("train", "train"), ("val", "t10k")):
        images, targets = _images(split, 28, 28)
        for kind, array in (("images-idx3", images), ("labels-idx1", targets.astype(np.uint8))):
            data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
            file = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(data) if packed else data)
            found.append((file.name, hashlib.md5(file.read_bytes()).hexdigest()))
    return found


@contextmanager
def cifar10_in(root: Path) -> Iterator[Path]:
    """CIFAR-10's batches under `root`, for torchvision to accept within this context."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, object]) -> tuple[str, str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return name, hashlib.md5((folder / name).read_bytes()).hexdigest()

    lists = []
    for split, names in (("train", [f"data_batch_{number}" for number in range(1, 6)]), ("val", ["test_batch"])):
        images, targets = _images(split, 3, 32, 32)
        parts = np.array_split(np.arange(len(targets)), len(names))
        rows = images.reshape(len(images), -1)
        lists.append(
            [
                write(name, {"data": rows[part], "labels": targets[part].tolist()})
                for name, part in zip(names, parts, strict=True)
            ]
        )
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta, digest = write("batches.meta", {"label_names": classes})
    kind = torchvision.datasets.CIFAR10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "train_list", lists[0])
        patch.setattr(kind, "test_list", lists[1])
        patch.setattr(kind, "meta", {"filename": meta, "key": "label_names", "md5": digest})
        yield root
