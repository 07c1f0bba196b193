"""Plain objects: a module, any map-style data set, a loss."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset, random_split
from torchvision.transforms import v2

import blitz
from blitz.data.items import ItemDataset
from blitz.objects import ObjectRecipe, Objects
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import Checkpoints
from tests.float64 import TOLERANCE
from tests.miniature_objects import Net, Noisy, Pairs, image_folder, my_loss
from tests.miniatures import cifar10_in
from tests.running import losses, result, same_bits, weights

TRAIN = partial(blitz.train, report=False, global_batch_size=8, log_every_steps=1, epochs=2)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., blitz.Run]:
    """`blitz.train` into an empty folder."""
    return partial(TRAIN, storage=tmp_path)


class Rows(Dataset[Any]):
    """What a function makes of the number of a row."""

    def __init__(self, item: Callable[[int], Any], rows: int = 20) -> None:
        self.item, self.rows = item, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Any:
        return self.item(row)


def x_of(row: int) -> Tensor:
    return torch.tensor([row / 20, 1.0, -row / 10])


class TwoInputs(nn.Module):
    """Takes an image and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 2)

    def forward(self, image: Tensor, extra: Tensor) -> Tensor:
        return self.layer(torch.cat([image.flatten(1), extra], 1))  # type: ignore[no-any-return]


class Nested(nn.Module):
    """Takes a dictionary and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, features: dict[str, Any], mask: Tensor) -> Tensor:
        return self.layer(features["deep"]["x"] * mask) + features["bias"]  # type: ignore[no-any-return]


def test_the_five_lines_of_the_guide_train_predict_and_open(train: Callable[..., blitz.Run]) -> None:
    data = Pairs()
    run = train(model=Net, train=data, val=data, loss=nn.CrossEntropyLoss(), optim=blitz.Optim("adam"), run="five")
    assert {"val/loss", "val/accuracy"} <= run.metrics.keys()
    said = run.predict(data)
    assert {*said["prediction"].to_pylist()} <= {"0", "1"}
    opened = blitz.open(run.uri, val=data)
    assert opened.predict(data).equals(said)
    assert opened.evaluate() == run.evaluate()
    assert same_bits(opened.model().state_dict(), run.model().state_dict())
    with pytest.raises(blitz.UserError, match=r"does not store its data sets; pass it again: blitz.open\(…, val=…\)"):
        blitz.open(run.uri).evaluate()


@pytest.mark.parametrize(
    ("model", "item", "options"),
    [
        pytest.param(partial(nn.Linear, 3, 2), lambda row: (x_of(row), row % 2), {}, id="a pair"),
        pytest.param(partial(nn.Linear, 3, 2), lambda row: [x_of(row).numpy(), row % 2], {}, id="a list with an array"),
        pytest.param(TwoInputs, lambda row: (torch.ones(1, 2, 2), torch.ones(1), row % 2), {}, id="three parts"),
        pytest.param(
            TwoInputs,
            lambda row: {"image": torch.ones(1, 2, 2), "extra": torch.ones(1), "label": row % 2},
            {},
            id="a dictionary by the names of arguments",
        ),
        pytest.param(
            Nested,
            lambda row: {"features": {"deep": {"x": x_of(row)}, "bias": 0.5}, "mask": torch.ones(3), "kind": row % 2},
            {"target": "kind", "forward": lambda model, batch: model(
                {"deep": {"x": batch["features/deep/x"]}, "bias": batch["features/bias"][:, None]}, batch["mask"])},
            id="nested dictionaries, a target by name, and a forward",
        ),
        pytest.param(
            partial(nn.Linear, 3, 2),
            lambda row: ("a" * row, row % 2),
            {"collate_fn": lambda items: (
                torch.stack([x_of(len(text)) for text, _ in items]), torch.tensor([one for _, one in items]))},
            id="texts with a collate_fn",
        ),
    ],
)  # fmt: skip
def test_items_of_any_form_reach_the_model(
    train: Callable[..., blitz.Run], model: Any, item: Callable[[int], Any], options: dict[str, Any]
) -> None:
    run = train(model=model, train=Rows(item), val=Rows(item, 5), loss=F.cross_entropy, **options)
    assert result(run.directory)["steps"] == 6
    assert 0 <= run.metrics["val/accuracy"] <= 1


def test_nested_inputs_arrive_as_they_were_nested() -> None:
    data = Rows(lambda row: ({"deep": {"x": x_of(row)}, "pair": (row, 2.0 * row)}, {"a": row, "b": x_of(row)}))
    columns = ItemDataset(data, what="train").__getitems__(np.array([3, 1]))
    assert {name: column.shape for name, column in columns.items()} == {
        "inputs/deep/x": (2, 3),
        "inputs/pair/0": (2,),
        "inputs/pair/1": (2,),
        "targets/a": (2,),
        "targets/b": (2, 3),
    }
    assert columns["inputs/pair/1"].dtype == np.float32
    batch = {name: torch.from_numpy(column) for name, column in columns.items()}
    recipe = ObjectRecipe(objects=Objects(loss=lambda outputs, targets: targets["b"].sum(1) + targets["a"]))
    seen: list[Any] = []
    recipe.forward(Seeing(seen), batch)
    assert seen[0]["pair"][0].tolist() == [3, 1]
    assert seen[0]["deep"]["x"].shape == (2, 3)
    assert recipe.loss(None, batch).shape == (2,)


class Seeing(nn.Module):
    """Keeps what it is called with."""

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, value: Any) -> None:
        self.seen.append(value)


def test_two_networks_are_a_module_dict_with_a_forward(train: Callable[..., blitz.Run]) -> None:
    def networks() -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": nn.Linear(3, 2), "decoder": nn.Linear(2, 3)})

    def both(model: nn.ModuleDict, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        code = model["encoder"](batch["inputs"])
        return {"code": code, "again": model["decoder"](code)}

    def loss(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        return (outputs["again"] - targets).square().mean(1)

    data = TensorDataset(*[torch.stack([x_of(row) for row in range(20)])] * 2)
    run = train(
        model=networks, train=data, val=data, loss=loss, forward=both, epochs=40, optim=blitz.Optim("adam", lr=0.05)
    )
    first, *_, last = losses(run.directory)
    assert last < first / 4
    assert run.predict(data).column_names[:2] == ["prediction_code_0", "prediction_code_1"]


def test_a_tensor_data_set_and_its_subsets_hold_the_same_rows(train: Callable[..., blitz.Run]) -> None:
    whole = TensorDataset(torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2)
    part, rest = random_split(whole, [20, 10], generator=torch.Generator().manual_seed(0))
    columns = ItemDataset(part, what="train").__getitems__(np.arange(20))
    assert np.array_equal(columns["inputs"], whole.tensors[0][part.indices].numpy())
    run = train(model=partial(nn.Linear, 3, 2), train=part, val=rest, loss=nn.CrossEntropyLoss())
    same = train(model=partial(nn.Linear, 3, 2), train=Subset(whole, part.indices), loss=nn.CrossEntropyLoss(), run="b")
    assert losses(same.directory) == losses(run.directory)


def test_an_image_folder_without_a_transform_is_bytes_scaled_to_one(
    train: Callable[..., blitz.Run], tmp_path: Path
) -> None:
    images = torchvision.datasets.ImageFolder(image_folder(tmp_path / "images", (8, 8, 8)))
    net = partial(nn.Sequential, nn.Flatten(), nn.Linear(192, 2))
    run = train(model=net, train=images, val=images, loss=nn.CrossEntropyLoss())
    assert {*run.predict(images)["prediction"].to_pylist()} <= {"cats", "dogs"}
    as_tensors = torchvision.datasets.ImageFolder(
        images.root, v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    )
    same = train(model=net, train=as_tensors, loss=nn.CrossEntropyLoss(), run="tensors")
    assert losses(same.directory) == pytest.approx(losses(run.directory), rel=1e-5)
    # The names of classes are kept, though the data set is not.
    assert blitz.open(run.uri, model=net).predict(images).equals(run.predict(images))


def test_torchvisions_cifar10_is_taken_as_it_is(train: Callable[..., blitz.Run], tmp_path: Path) -> None:
    with cifar10_in(tmp_path / "cifar"):
        data = torchvision.datasets.CIFAR10(tmp_path / "cifar")
        net = partial(nn.Sequential, nn.Flatten(), nn.Linear(3072, 10))
        run = train(model=net, train=Subset(data, range(40)), loss=nn.CrossEntropyLoss(), epochs=1)
        assert isinstance(run.recipe, ObjectRecipe)
        assert run.recipe.classes[0] == "airplane"


def test_hugging_face_data_sets_are_fetched_in_batches_and_seeded(train: Callable[..., blitz.Run]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"x": datasets.List(datasets.Value("float32"), length=3), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = {"x": [x_of(row).tolist() for row in range(20)], "label": [row % 2 for row in range(20)]}
    data = datasets.Dataset.from_dict(rows, features=features)
    run = train(model=partial(nn.Linear, 3, 2), train=data, val=data, loss=nn.CrossEntropyLoss())
    assert {*run.predict(data)["prediction"].to_pylist()} <= {"no", "yes"}
    noisy = data.with_transform(lambda rows: {**rows, "x": [np.array(x) + random.random() for x in rows["x"]]})
    fetched = ItemDataset(noisy, what="train")
    together = fetched.__getitems__(np.arange(5))["x"]
    assert np.array_equal(together[[4, 2]], fetched.__getitems__(np.array([4, 2]))["x"])
    assert not np.array_equal(together[0], data[0]["x"])


@pytest.mark.parametrize(
    ("loss", "form"),
    [
        (nn.CrossEntropyLoss(), "module"),
        (F.cross_entropy, "function"),
        (my_loss, "own"),
        (lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"), "lambda"),
    ],
)
def test_a_loss_in_any_form_is_the_same_loss(train: Callable[..., blitz.Run], loss: Any, form: str) -> None:
    run = train(model=Net, train=Pairs(), loss=loss, metrics="classification", run=form)
    reference = train(model=Net, train=Pairs(), loss=my_loss, metrics="classification", run=f"{form}-again")
    assert losses(run.directory) == losses(reference.directory)


def test_metrics_are_implied_named_or_a_function(train: Callable[..., blitz.Run]) -> None:
    numbers = TensorDataset(torch.randn(20, 3), torch.randn(20, 1))
    line = partial(nn.Linear, 3, 1)
    implied = train(model=line, train=numbers, val=numbers, loss=nn.L1Loss(), run="implied")
    named = train(
        model=line, train=numbers, val=numbers, loss=lambda a, b: (a - b).abs(), metrics="regression", run="n"
    )
    assert implied.metrics == named.metrics
    assert {"val/mae", "val/rmse"} <= implied.metrics.keys()

    def off_by(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"off": (outputs - targets).abs()}

    own = train(model=line, train=numbers, val=numbers, loss=nn.L1Loss(), metrics=off_by, run="own")
    assert own.metrics["val/off"] == pytest.approx(own.metrics["val/loss"], rel=1e-6)
    assert {*own.metrics} == {"val/loss", "val/off"}


def test_what_an_item_draws_depends_on_the_seed_the_epoch_and_the_row_alone() -> None:
    data = ItemDataset(Noisy(), what="train", seed=1)
    rows, torch_state, python_state = np.arange(6), torch.get_rng_state(), random.getstate()
    first = data.rows_at(rows, np.zeros(6, np.int64))["inputs"]
    assert torch.equal(torch_state, torch.get_rng_state())
    assert python_state == random.getstate()
    turned = data.rows_at(rows[::-1].copy(), np.zeros(6, np.int64))["inputs"]
    assert np.array_equal(first, turned[::-1])
    assert not (first == data.rows_at(rows, np.ones(6, np.int64))["inputs"]).any()
    assert not (first == ItemDataset(Noisy(), what="train", seed=2).__getitems__(rows)["inputs"]).any()


def test_loader_processes_fetch_the_rows_that_this_process_fetches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = []
    for workers in (0, 2):
        monkeypatch.setattr(ObjectRecipe, "loader_workers", workers)
        runs.append(TRAIN(model=Net, train=Noisy(), loss=my_loss, storage=tmp_path, run=f"w{workers}"))
    assert losses(runs[0].directory) == losses(runs[1].directory)


class Interrupting(Noisy):
    """Presses Ctrl-C when a row is fetched for the so many-th time."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().__getitem__(row)


def test_an_interrupted_run_resumes_to_the_bits_of_one_that_was_not(train: Callable[..., blitz.Run]) -> None:
    options = {"model": Net, "loss": my_loss, "val": Pairs(5), "checkpoint": Checkpoints(every_steps=2), "epochs": 6}
    whole = train(train=Noisy(), run="whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(train=Interrupting(after=150), run="cut", **options)
    stopped = blitz.open(RunDirectory.of(str(Path(whole.uri).parent), "cut").uri)
    assert not stopped.finished
    assert "(not finished)" in repr(stopped)
    cut = train(train=Noisy(), run="cut", **options)
    assert "continues" not in repr(cut)
    assert same_bits(weights(cut.directory), weights(whole.directory))
    assert losses(cut.directory) == losses(whole.directory)


def test_the_same_call_finds_its_run_and_one_with_another_model_loss_or_data_starts_another(
    train: Callable[..., blitz.Run],
) -> None:
    first = train(model=Net, train=Pairs(), loss=my_loss)
    assert train(model=Net, train=Pairs(), loss=my_loss).uri == first.uri
    others = [
        train(model=Net, train=Pairs(), loss=lambda outputs, targets: 2 * my_loss(outputs, targets)),
        train(model=Net, train=Pairs(36), loss=my_loss),
        train(model=lambda: Net().requires_grad_(True), train=Pairs(), loss=my_loss),
    ]
    assert len({run.uri for run in (first, *others)}) == 4
    with pytest.raises(blitz.UserError, match="was made with other settings: rows "):
        train(model=Net, train=Pairs(36), loss=my_loss, run=first.name)


def test_the_data_sets_are_not_pickled_with_the_recipe() -> None:
    import cloudpickle

    big = TensorDataset(torch.zeros(100_000, 3), torch.zeros(100_000, dtype=torch.long))
    recipe = ObjectRecipe.of(Objects(model=partial(nn.Linear, 3, 2), train=big, loss=nn.CrossEntropyLoss()))
    pickled = cloudpickle.dumps(recipe)
    assert len(pickled) < 10_000
    again = cloudpickle.loads(pickled)
    assert again == recipe
    assert again.objects.train is None


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> blitz.Run:
    """The run in this process that those on Ray are compared with."""
    return ray_run(tmp_path_factory.mktemp("alone"), 0)


def ray_run(storage: Path, workers: int) -> blitz.Run:
    """A run of what Ray's workers cannot import: a class of the program itself, and a function of a function."""

    class Local(Net):
        """Known here only."""

    # As one that a notebook defines.
    Local.__module__ = "__main__"

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    where: dict[str, Any] = {"num_workers": workers, "use_gpu": "no", "storage": storage, "run": f"on-{workers}"}
    return TRAIN(model=Local, train=Noisy(), val=Noisy(11), loss=loss, metrics="classification", **where)


@pytest.mark.cluster
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_on_ray_see_the_same_rows_and_losses(
    workers: int, alone: blitz.Run, ray_runtime: None, tmp_path: Path
) -> None:
    import ray

    run = ray_run(tmp_path, workers)
    # The program's own Ray is used, and is not shut down.
    assert ray.is_initialized()
    assert result(run.directory)["rows_digest"] == result(alone.directory)["rows_digest"]
    assert losses(run.directory) == pytest.approx(losses(alone.directory), rel=TOLERANCE)
    assert run.metrics == pytest.approx(alone.metrics, rel=TOLERANCE)
