"""The settings of all recipes over images: the files, and what to learn from them."""

import fnmatch
from dataclasses import dataclass
from typing import Literal

from blitz.data.csv.class_folders import CLASS, IMAGE
from blitz.data.csv.reading.head import Head
from blitz.data.csv.reading.image_files import ImageCheck
from blitz.data.csv.source import CsvSource
from blitz.errors import DataError, require
from blitz.fields import may_change
from blitz.storage import is_folder

Fit = Literal["crop", "stretch"]
Task = Literal["auto", "classification", "numbers", "points", "multilabel"]

_LARGEST = 4096
_IMAGE_NAMES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class ImageCsvData(CsvSource):
    """The CSV column that names the images, or the folder that holds them, and what to learn from them."""

    train_dir: str | None = may_change(None)
    """Instead of a CSV, a folder of class folders, <class>/<image>, as torchvision's ImageFolder reads it."""
    val_dir: str | None = may_change(None)
    """Another such folder, to evaluate on."""
    image_column: str | None = None
    """Paths or URIs of the images; by default the column that holds names such as cat.jpg."""
    label_column: tuple[str, ...] = ()
    """What to learn: one column of classes or numbers, or several of numbers; `part_*` names all with that prefix. By
    default all columns but the images'."""
    image_root: str | None = may_change(None)
    """Folder that relative paths start from; by default the CSV's."""
    image_check: ImageCheck = may_change("whole")
    """Before training, check that all files exist, or also that they are whole, by their first and last bytes, or
    decode them all, which finds every fault that training would find."""
    task: Task = "auto"
    """points are pairs of columns, x and y in pixels of the image, that move with it. multilabel are columns of 0 and
    1: labels, of which an image may have any number. auto classifies one column of categories, else it predicts
    numbers."""
    label_separator: str | None = None
    """If the column to learn holds lists of labels, what separates them, such as ';'."""
    fit: Fit = "crop"
    """How images become square: cut to the middle, or stretched as a whole."""
    size: int | None = None
    """Side in pixels of the model's inputs; by default 224, or for a model of timm its own."""
    resize: int | None = None
    """Side in pixels that images are decoded to: the model sees a crop, random in training and else the middle.
    By default size · 8/7, but with --data.fit stretch the size."""
    loader_workers: Literal["auto"] | int = may_change("auto")
    """Without Ray: how many processes decode images; auto measures and prints it. On Ray the cluster's CPUs do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.side >= 1, f"--data.size is {self.size}; it must be at least 1")
        resize, workers = self.resize, self.loader_workers
        for name, side in (("size", self.side), ("resize", resize or 1)):
            require(side <= _LARGEST, f"--data.{name} is {side}; it must be at most {_LARGEST} pixels")
        require(
            resize is None or resize >= self.side,
            f"--data.resize is {resize}; it must be at least --data.size, {self.side}",
        )
        require(workers == "auto" or workers >= 0, f"--data.loader-workers is {workers}; it must be auto, 0 or more")

    @property
    def side(self) -> int:
        """Side in pixels of the model's inputs."""
        return 224 if self.size is None else self.size

    @property
    def decoded(self) -> int:
        """Side in pixels that images are decoded to."""
        if self.resize is not None:
            return self.resize
        return round(self.side * 8 / 7) if self.fit == "crop" else self.side

    @property
    def train_source(self) -> str:
        """The CSV or the folder to train on."""
        return self.train_dir or self.train_csv

    @property
    def val_source(self) -> str | None:
        """The CSV or the folder to evaluate on."""
        return self.val_dir or self.val_csv

    def check(self) -> None:
        """Refuse what cannot be trained on.

        Raises:
            UserError: if neither a CSV nor a folder is named, or both are, or two ways to evaluate are.
        """
        require(bool(self.train_source), "name what to train on: --data.train-csv FILE or --data.train-dir FOLDER")
        require(self.label_separator != "", "--data.label-separator is empty; give what separates labels, such as ';'")
        listed = self.label_separator is None or self.task in ("auto", "multilabel")
        require(listed, f"--data.label-separator is for labels, and --data.task is {self.task}; leave one of them out")
        if self.train_dir is None:
            require(self.val_dir is None, "--data.val-dir goes with --data.train-dir; name a CSV with --data.val-csv")
        else:
            require(
                not (self.train_csv or self.val_csv or self.test_csv or self.image_root),
                "--data.train-dir does not go with --data.train-csv, val-csv, test-csv and image-root; "
                "give folders of class folders, or CSVs",
            )
            require(
                self.task in ("auto", "classification") and self.label_separator is None,
                f"--data.task {self.task} needs a CSV: a folder of class folders only gives classes",
            )
        super().check()
        for name, csv in (("train-csv", self.train_csv), ("val-csv", self.val_csv), ("test-csv", self.test_csv)):
            mend = f"name CSVs, as {csv}/*.csv, or class folders with --data.train-dir"
            require(not csv or not is_folder(csv), f"--data.{name} {csv} is a folder; {mend}")

    def columns(self) -> tuple[str, tuple[str, ...]]:
        """The column of images, and the columns to learn.

        Raises:
            DataError: if the CSV does not have them.
        """
        if self.train_dir is not None:
            return IMAGE, (CLASS,)
        head = self.read_head()
        image_column = self.image_column or _image_column(head, self.train_csv)
        if image_column not in head.columns:
            raise DataError(f"{self.train_csv} has no column '{image_column}'; it has: {', '.join(head.columns)}")
        return image_column, _targets_of(head, self, image_column)


def _image_column(head: Head, csv: str) -> str:
    """The only column whose cells look like the names of image files."""
    if not head.rows:
        raise DataError(f"{csv} has a header and no rows")
    found = [
        name
        for name, cells in head.columns.items()
        if 2 * sum(cell.lower().endswith(_IMAGE_NAMES) for cell in cells) > len(cells)
    ]
    if len(found) != 1:
        raise DataError(
            f"{csv}: {len(found) or 'none'} of the columns {', '.join(head.columns)} holds names of image files; "
            "name the one to read with --data.image-column"
        )
    return found[0]


def _targets_of(head: Head, data: ImageCsvData, image_column: str) -> tuple[str, ...]:
    others = [name for name in head.columns if name != image_column]
    for pattern in data.label_column:
        if not fnmatch.filter(others, pattern):
            raise DataError(f"{data.train_csv} has no column '{pattern}' to learn; it has: {', '.join(head.columns)}")
    wanted = data.label_column or ("*",)
    found = tuple(name for name in others if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted))
    if not found:
        raise DataError(f"{data.train_csv} has only the column '{image_column}'; there must be one to learn")
    several = len(found) > 1
    require(
        not (several and data.task == "classification"),
        f"--data.task classification learns one column, and there are {len(found)}: {', '.join(found[:8])} …; "
        "name it with --data.label-column",
    )
    require(
        data.task != "points" or len(found) % 2 == 0,
        f"--data.task points learns pairs of columns, x and y, and there are {len(found)}: {', '.join(found[:8])} …",
    )
    require(
        not (several and data.label_separator),
        f"--data.label-separator is for one column of lists, and there are {len(found)}: {', '.join(found[:8])} …; "
        "name it with --data.label-column",
    )
    numeric = several and data.task != "multilabel"
    texts = [name for name in found if numeric and not head.holds_numbers(name)]
    if texts:
        raise DataError(
            f"{data.train_csv}: column '{texts[0]}' is not of numbers, and only those are learned several at once; "
            "name what to learn with --data.label-column"
        )
    return found
