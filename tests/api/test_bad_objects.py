"""What plain objects that do not go together get: one line, before anything is written or started."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import blitz
from tests.miniature_objects import Net, Pairs, image_folder, my_loss


class NoLength(Dataset[Any]):
    """Does not say how many rows it has."""

    def __getitem__(self, row: int) -> Any:
        return torch.zeros(3), 0


class Stream(IterableDataset[Any]):
    """Rows one after the other."""

    def __iter__(self) -> Iterator[Any]:
        yield torch.zeros(3), 0


class Learned(nn.Module):
    """A loss with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none") * self.scale


class Odd(Dataset[Any]):
    """Cannot read one of its rows."""

    def __init__(self, rows: int, odd: int = -1) -> None:
        self.rows, self.odd = rows, odd

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Any:
        if row == self.odd:
            raise KeyError("age")
        return torch.zeros(3, dtype=torch.float64), 0


class Broken(nn.Module):
    """Cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no weights")


class Pair(nn.Module):
    """Gives a tuple."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


LINEAR = partial(nn.Linear, 3, 2)
NUMBERS = TensorDataset(torch.randn(20, 3), torch.randn(20))


def mean_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"train": NoLength()}, "train=NoLength has no __len__: the number of its rows must be known"),
        ({"train": Stream()}, "train=Stream is not a map-style data set: it must have __len__ and __getitem__"),
        ({"val": Stream()}, "val=Stream is not a map-style data set"),
        ({"train": DataLoader(Pairs())}, "train=DataLoader: pass its data set, train=loader.dataset"),
        ({"train": {"train": Pairs()}}, r"train=dict is a dictionary; pass one data set of it, as train=…\['train'\]"),
        ({"train": []}, "train=list is empty"),
        ({"train": None}, "train= is missing"),
        ({"loss": None}, "loss= is missing: a module or function of"),
        ({"model": None}, "name a recipe, or give model="),
        ({"model": "resnet18"}, "model='resnet18' is neither a module nor a callable"),
        ({"model": dict}, "gives dict; it must be or make a torch.nn.Module"),
        ({"loss": mean_of}, r"loss=mean_of gives a tensor of shape \(\) for 8 rows; it must give a number"),
        ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "has reduction='sum', and the loop takes the mean"),
        ({"loss": Learned()}, "loss=Learned has parameters"),
        ({"loss": lambda outputs, targets: 0.0}, "gives float; it must give a tensor"),
        (
            {"model": partial(nn.Linear, 5, 2)},
            r"does not take rows of train \(inputs float64 \(8, 3\), targets int64 \(8,\)\): RuntimeError: mat1 and",
        ),
        (
            {"train": TensorDataset(torch.randn(20, 3), torch.zeros(20, 1, dtype=torch.long)), "model": LINEAR},
            r"does not take the outputs and targets of rows of train \(.* int64 \(8, 1\)\): RuntimeError: ",
        ),
        ({"train": NUMBERS, "model": LINEAR}, "does not take the outputs and targets of rows of train"),
        (
            {"train": NUMBERS, "model": partial(nn.Linear, 3, 1), "loss": nn.MSELoss()},
            r"loss=MSELoss compares every row with every other: outputs \(8, 1\), targets \(8,\); give both the same",
        ),
        # Only the last rows are of the class that the model does not have: where rows are sorted by class.
        (
            {"train": TensorDataset(torch.randn(20, 3), torch.arange(20) // 8), "model": LINEAR},
            r"of rows of train \(.*\): IndexError: Target 2 is out of bounds",
        ),
        (
            {"train": [(torch.zeros(3), 0), (torch.zeros(4), 1)], "model": LINEAR},
            r"train: 0 differ in shape, as \(3,\) and \(4,\); resize or pad them alike, or give a collate_fn",
        ),
        ({"train": [{"x": 1.0, "y": 0}, {"x": 1.0}]}, "items differ: the first of a batch has y, another has not"),
        ({"train": [(object(), 0)]}, "train: 0 is object; give tensors, arrays or numbers, or a collate_fn"),
        ({"train": [("a text", 0)]}, "train: 0 is str; give tensors, arrays or numbers, or a collate_fn"),
        ({"val": NUMBERS}, "does not take rows of val"),
        ({"metrics": "accuracy"}, "metrics='accuracy': give 'classification' or 'regression', or a function of"),
        (
            {"metrics": lambda outputs, targets: {"right": (outputs.argmax(1) == targets).double().mean()}},
            "metrics: 'right' must be a tensor with a number for each of the 8 rows, not their mean",
        ),
        ({"epoch": 5}, "has no setting 'epoch'; perhaps epochs"),
        ({"lr": 5}, "has no setting 'lr'; perhaps optim.lr"),
        ({"batch_size": 5}, "has no setting 'batch_size'; perhaps global_batch_size or micro_batch_size"),
        ({"track": "mlfow"}, "--track mlfow: there is no such tracker; there are wandb, mlflow, trackio, comet"),
        ({"model": Broken}, "model=Broken cannot be made: RuntimeError: no weights"),
        ({"model": Pair, "loss": nn.MSELoss()}, r"rows of train \(outputs tuple of 2, targets int64 \(8,\)\): "),
        ({"train": torch.ones(20, 3), "model": LINEAR}, r"its items have no targets; give \(inputs, targets\)"),
        ({"train": Odd(-1)}, "train=Odd: its __len__ fails: ValueError: __len__"),
        ({"val": Odd(20, odd=19)}, r"val=Odd: row 19 cannot be read \(test_bad_objects\.py:\d+\): KeyError: 'age'"),
        ({"train": [(torch.ones(3), 0), None]}, "train=list: row 1 is None"),
        ({"collate_fn": lambda items: torch.stack([x for x, _ in items]).T}, "the first dimension of all that"),
        (
            {"train": [{"image": torch.zeros(2), "mask": torch.zeros(2), "y": 0}] * 3, "model": nn.Bilinear(2, 2, 2)},
            "forward takes input1, input2, and a row has image, mask; name them alike, or give forward=",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    objects: dict[str, Any] = {"model": Net, "train": Pairs(), "loss": nn.CrossEntropyLoss(), **given}
    with pytest.raises(blitz.UserError, match=says) as refused:
        blitz.train(**objects, storage=tmp_path / "runs")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_a_row_that_fails_later_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(blitz.DataError, match=r"train=Odd: row 3 cannot be read .*: KeyError: 'age'"):
        blitz.train(model=Net, train=Odd(20, odd=3), loss=nn.CrossEntropyLoss(), storage=tmp_path, report=False)


def test_images_of_different_sizes_are_one_line(tmp_path: Path) -> None:
    images = torchvision.datasets.ImageFolder(image_folder(tmp_path / "images", (8, 9)))
    with pytest.raises(blitz.UserError, match=r"differ in shape, as \(3, 8, 8\) and \(3, 9, 9\); resize or pad"):
        blitz.train(model=nn.Flatten, train=images, loss=my_loss, storage=tmp_path)


def test_what_a_run_has_not_stored_is_asked_for_when_it_is_needed(tmp_path: Path) -> None:
    weighted = nn.CrossEntropyLoss(label_smoothing=0.1)
    data = Pairs()
    run = blitz.train(
        model=lambda: Net(), train=data, val=data, loss=weighted, storage=tmp_path, run="lambda", report=False
    )
    opened = blitz.open(run.uri)
    assert opened.metrics == run.metrics
    with pytest.raises(blitz.UserError, match=r"<lambda> has no name .*open the run with it: blitz.open\(…, model=…\)"):
        opened.model()
    with pytest.raises(blitz.UserError, match=r"loss=.*CrossEntropyLoss\(…\) was made with arguments .*loss=…\)"):
        blitz.open(run.uri, model=Net, val=data).evaluate()
    assert blitz.open(run.uri, model=Net, val=data, loss=weighted).evaluate() == run.evaluate()
    with pytest.raises(blitz.UserError, match=r"modle=: .*; perhaps model="):
        blitz.open(run.uri, modle=Net)
    with pytest.raises(
        blitz.UserError,
        match=r"its weights do not fit the model",
    ):
        blitz.open(run.uri, model=LINEAR).model()
