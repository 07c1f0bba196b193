"""A small version of each recipe: a new one is added here to be tested like all others."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from blitz.augmentation import Augmentation
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.csv.tabular import CsvData
from blitz.data.text.lines import LineData
from blitz.data.text.sentences import PairData
from blitz.data.torchvision_images import VisionData
from blitz.models.table_models import Layers
from blitz.optim import Optim
from blitz.recipe import Recipe
from blitz.recipes.blobs import Blobs
from blitz.recipes.cifar10 import Cifar10
from blitz.recipes.digits import Digits
from blitz.recipes.dynamic_net import DynamicNetOnNoise
from blitz.recipes.finetune import Finetune
from blitz.recipes.image_csv import ImageCsv, VisionModel
from blitz.recipes.language import DecoderModel, Language
from blitz.recipes.lenet import LeNetOnMnist
from blitz.recipes.mnist import Mnist
from blitz.recipes.parabola import Parabola
from blitz.recipes.random_mlp import RandomMLP
from blitz.recipes.table_csv import TableCsv
from blitz.recipes.translate import Translate, TranslatorModel
from tests.pictures import coloured


@dataclass(frozen=True)
class DataFolders:
    """Folders of data."""

    made: Path
    """A folder to make data in."""
    vision: Path
    """The folder of CIFAR-10 and MNIST for torchvision."""


@dataclass(frozen=True)
class Small:
    """A recipe on few rows."""

    recipe: Recipe
    without_chance: dict[str, Any] = field(default_factory=dict)
    """Settings without dropout and augmentation, to overfit one batch."""
    lr: float = 0.01
    """Adam's learning rate to overfit one batch."""
    same_losses: bool = True
    """Whether two workers have the losses of one to rounding: without dropout and batch norm."""

    @property
    def short(self) -> Recipe:
        """Two epochs of five steps, the last of which is of 5 rows."""
        return replace(
            self.recipe,
            epochs=2,
            max_train_rows=37,
            max_eval_rows=21,
            global_batch_size=8,
            evaluate_every_steps=None,
            log_every_steps=1,
        )

    @property
    def one_batch(self) -> Recipe:
        """A hundred steps on the same 8 rows."""
        return replace(
            self.short,
            epochs=100,
            max_train_rows=8,
            evaluate_every_steps=100,
            optim=Optim(name="adam", lr=self.lr),
            **self.without_chance,
        )


def _table(folders: DataFolders) -> Small:
    random, file = np.random.default_rng(0), folders.made / "table.csv"
    lines = [f"{one:.3f},{'xyz'[code]},{'no' if one + code < 1 else 'yes'}" for one, code in _numbers(random)]
    file.write_text("\n".join(["number,letter,answer", *lines, ""]))
    data = CsvData(train_csv=str(file), target="answer", val_fraction=0.3, cache=str(folders.made / "cache"))
    return Small(TableCsv(data=data), {"model": Layers(dropout=0)}, same_losses=False)


def _numbers(random: np.random.Generator) -> list[tuple[float, int]]:
    return [(float(random.normal()), int(random.integers(3))) for _ in range(60)]


def _images(folders: DataFolders) -> Small:
    data = ImageCsvData(
        train_csv=str(coloured(folders.made / "images", 60)),
        val_fraction=0.3,
        cache=str(folders.made / "cache"),
        size=32,
        loader_workers=0,
    )
    recipe = ImageCsv(data=data, model=VisionModel(name="squeezenet1_1"))
    plain = {"augmentation": Augmentation(flip=False, min_area=1.0)}
    # At 1e-3 the ReLU that ends SqueezeNet is 0 for all rows with some seeds, and nothing is learned.
    return Small(recipe, plain, lr=3e-4, same_losses=False)


def _finetuned(folders: DataFolders) -> Small:
    """The head alone for two of the ten steps; one batch is overfitted by the whole model."""
    small = _images(folders)
    assert isinstance(small.recipe, ImageCsv)
    fields: dict[str, Any] = {
        "weights": None,
        "backbone_lr_factor": 1.0,
        "freeze": "backbone",
        "unfreeze_after_epochs": 0.4,
    }
    return replace(small, recipe=Finetune(data=small.recipe.data, model=small.recipe.model, **fields))


def _translation(folders: DataFolders) -> Small:
    for name in ("train", "val"):
        for language, words in (("en", ("a man", "a dog", "sees", "wants")), ("de", ("Mann", "Hund", "sieht", "will"))):
            lines = [f"{words[n % 2]} {words[2 + n % 3 // 2]} {n} {words[n // 4 % 4]}\n" for n in range(40)]
            (folders.made / f"{name}.{language}").write_text("".join(lines))
    data = PairData(root=str(folders.made), vocabulary=300, max_tokens=32)
    recipe = Translate(data=data, model=TranslatorModel(width=32, dropout=0))
    return Small(recipe, {"label_smoothing": 0.0}, lr=0.02)


def _language(folders: DataFolders) -> Small:
    for name in ("train", "val"):
        lines = [f"a {['man', 'dog', 'cat'][n % 3]} {['sees', 'wants'][n % 2]} {n}\n" for n in range(40)]
        (folders.made / f"{name}.en").write_text("".join(lines))
    data = LineData(root=str(folders.made), vocabulary=300, max_tokens=32)
    return Small(Language(data=data, model=DecoderModel(width=32, layers=2, heads=2, dropout=0)))


SMALL: dict[str, Callable[[DataFolders], Small]] = {
    "blobs": lambda folders: Small(Blobs(), lr=0.05),
    "cifar10": lambda folders: Small(Cifar10(data=VisionData(root=str(folders.vision)))),
    "digits": lambda folders: Small(Digits()),
    "dynamic_net": lambda folders: Small(DynamicNetOnNoise(), lr=1e-3),
    "finetune": _finetuned,
    "image_csv": _images,
    "language": _language,
    "lenet": lambda folders: Small(LeNetOnMnist(data=VisionData(root=str(folders.vision)))),
    "mnist": lambda folders: Small(Mnist(data=VisionData(root=str(folders.vision)))),
    "parabola": lambda folders: Small(Parabola(), lr=0.05),
    "random_mlp": lambda folders: Small(RandomMLP(), lr=1e-3),
    "table_csv": _table,
    "translate": _translation,
}
