"""The same run in this process and on 1, 2 and 3 Ray workers, and evaluations of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from blitz.api.evaluate_run import EvaluateSettings, evaluate
from blitz.data.plan import Split
from blitz.data.torchvision_images import VisionData
from blitz.errors import DataError, RunFailed, UserError
from blitz.launch.scale import Scale
from blitz.optim import Optim
from blitz.recipe import Batch
from blitz.recipes import recipe_to_json
from blitz.recipes.cifar10 import Cifar10
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from tests.float64 import TOLERANCE, in_float64
from tests.miniatures import cifar10_in
from tests.running import losses, result, same_bits, train, weights

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_runtime")]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cifar10]:
    """LeNet on 205 images: 21 steps an epoch, a global batch that 3 workers do not divide, and a last one of 5."""
    root = tmp_path_factory.mktemp("cifar10")
    plain = Cifar10(
        epochs=2,
        global_batch_size=10,
        log_every_steps=1,
        max_train_rows=205,
        max_eval_rows=1003,
        optim=Optim(name="momentum", lr=0.01),
        data=VisionData(root=str(root)),
    )
    with cifar10_in(root):
        yield in_float64(plain)


@pytest.fixture(scope="module")
def in_process(recipe: Cifar10, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = train(recipe, tmp_path_factory.mktemp("in_process"))
    run.write_json("recipe.json", recipe_to_json(recipe))
    return run


@pytest.mark.parametrize(("num_workers", "micro_batch_size"), [(1, None), (2, 2), (3, None)])
def test_rows_and_losses_are_the_same_on_any_number_of_workers(
    num_workers: int, micro_batch_size: int | None, recipe: Cifar10, in_process: RunDirectory, tmp_path: Path
) -> None:
    on_ray = train(replace(recipe, micro_batch_size=micro_batch_size), tmp_path, num_workers=num_workers)
    assert len(losses(in_process)) == 42
    assert losses(on_ray) == pytest.approx(losses(in_process), rel=TOLERANCE)
    assert result(on_ray)["rows_digest"] == result(in_process)["rows_digest"]
    if num_workers == 1:
        assert same_bits(weights(on_ray), weights(in_process))


def test_an_evaluation_gives_the_same_integer_counts_on_three_workers(
    recipe: Cifar10, in_process: RunDirectory
) -> None:
    def found(num_workers: int) -> Any:
        settings = EvaluateSettings(recipe, checkpoint="last", scale=Scale(num_workers=num_workers))
        return evaluate(in_process, settings)

    def shown(examples: Any) -> dict[str, list[int]]:
        return {kind: [one["row"] for one in rows] for kind, rows in examples.items()}

    one, other = found(0), found(3)
    assert shown(other["examples"]) == shown(one["examples"])
    alone, together = one["sums"], other["sums"]
    assert together["confusion"] == alone["confusion"]
    assert together["rows"] == alone["rows"] == sum(map(sum, alone["confusion"])) == 1003
    assert together["loss"] == pytest.approx(alone["loss"], rel=TOLERANCE)


@dataclass(frozen=True)
class Faulty(Digits):
    """Digits with a fault: in the rows, in the loss, in the model, or an exception of the recipe's own."""

    fault: str = ""

    def dataset(self, split: Split) -> Any:
        return Broken() if self.fault == "rows" else super().dataset(split)

    def build_model(self) -> nn.Module:
        model = super().build_model()
        if self.fault == "model":
            model.register_module("never_used", nn.Linear(1, 1, bias=False))
        return model

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        if self.fault == "exception":
            print("what the recipe prints")
            raise KeyError("my own mistake")
        losses = super().loss(outputs, batch)
        return losses.mean() if self.fault == "loss" else losses


class Broken:
    """Says that it has rows; the first can be fetched, as the driver does to see how large a row is."""

    def __len__(self) -> int:
        return 100

    def __getitems__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        if len(rows) > 1:
            raise DataError("rows.csv:17: column 'age' holds 'abc'; expected a number")
        return {"inputs": np.zeros((1, 1, 8, 8), np.uint8), "targets": np.zeros(1, np.int64)}


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("rows", UserError, r"^rows.csv:17: column 'age' holds 'abc'; expected a number$"),
        ("model", UserError, r"^recipe .* does not depend on never_used.weight; .* --find-unused-parameters"),
        ("exception", RunFailed, r"(?m)^KeyError in rank \d: 'my own mistake'$"),
    ],
)
def test_an_error_in_a_worker_or_in_a_task_of_ray_data_is_reported_in_one_line(
    fault: str, kind: type[Exception], says: str, tmp_path: Path
) -> None:
    # A mistake of the user is not tried again.
    max_failures = 3 if kind is UserError else 0
    with pytest.raises(kind, match=says) as error:
        train(Faulty(fault=fault), tmp_path, num_workers=2, max_failures=max_failures)
    assert "\n" not in str(error.value)
    first, second = sorted((tmp_path / "logs").iterdir())
    assert first.read_text().startswith("rank 0 of 2 on ")
    assert second.read_text().startswith("rank 1 of 2 on ")
    if fault == "exception":
        # The recipe's own line is in what the command takes it from.
        assert "test_worker_counts.py" in str(error.value.__cause__)
        (note,) = error.value.__notes__
        log = Path(note.removeprefix("the rank's log is "))
        assert log in (first, second)
        assert "what the recipe prints" in log.read_text()
        assert "test_worker_counts.py" in log.read_text()
        assert log.read_text().endswith("KeyError: 'my own mistake'\n")


def test_a_loss_that_is_not_one_number_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^recipe .* one number a row"):
        train(Faulty(fault="loss"), tmp_path)


def test_unused_parameters_train_on_two_workers_if_the_recipe_says_so(tmp_path: Path) -> None:
    recipe = in_float64(Faulty(fault="model", find_unused_parameters=True, epochs=1))
    alone, together = train(recipe, tmp_path / "alone"), train(recipe, tmp_path / "together", num_workers=2)
    assert losses(together) == pytest.approx(losses(alone), rel=TOLERANCE)
