from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Shares, Split
from blitz.errors import DataError, UserError
from blitz.optim import Optim
from blitz.outputs.metrics import Classification, Loss
from blitz.recipe import Batch, Recipe, may_change
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import Checkpoints
from blitz.training.model import build_model
from blitz.training.world import World
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, result, same_bits, train, weights

SMALL = Digits(
    epochs=2, max_train_rows=70, max_eval_rows=50, global_batch_size=16, log_every_steps=1, optim=Optim(lr=0.003)
)
"""Five steps an epoch, the last of 6 rows."""


@dataclass(frozen=True)
class Noisy(Recipe):
    """Points on two sides of a line, and a net with dropout and batch norm."""

    epochs: int = may_change(3)
    global_batch_size: int = 7
    log_every_steps: int = may_change(1)

    def dataset(self, split: Split) -> ArrayDataset:
        inputs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
        return ArrayDataset(inputs=inputs, targets=(inputs.sum(1) > 0).astype(np.int64))

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch["targets"], reduction="none")

    def metrics(self) -> Classification:
        return Classification(classes=("below", "above"))


def test_the_loop_takes_the_steps_that_a_plain_loop_takes_on_the_same_rows(tmp_path: Path) -> None:
    recipe = in_float64(replace(SMALL, optim=Optim(name="momentum", lr=0.1)))
    dataset = recipe.dataset("train")
    shares = Shares.of(recipe.plan(len(dataset), 0), world_size=1, row_bytes=64)

    torch.manual_seed(recipe.seed)
    model = recipe.build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=False)
    expected = []
    for chunk in shares.chunks(0):
        rows, row_weights = shares.rows_of(chunk, 0)
        for step in range(chunk.stop - chunk.start):
            part = slice(step * shares.share, (step + 1) * shares.share)
            columns = dataset.__getitems__(rows[part][row_weights[part] > 0])
            optimizer.zero_grad()
            outputs = model(torch.from_numpy(columns["inputs"]).double() / 16)
            loss = F.cross_entropy(outputs, torch.from_numpy(columns["targets"]))
            loss.backward()
            optimizer.step()
            expected.append(loss.item())

    run = train(recipe, tmp_path)
    assert losses(run) == pytest.approx(expected, rel=TOLERANCE)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights(run)[name], value, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("micro_batch_size", [1, 5, 16])
def test_any_split_into_micro_batches_gives_the_same_run(tmp_path: Path, micro_batch_size: int) -> None:
    whole = train(in_float64(SMALL), tmp_path / "whole")
    split = train(replace(in_float64(SMALL), micro_batch_size=micro_batch_size), tmp_path / "split")
    assert losses(split) == pytest.approx(losses(whole), rel=TOLERANCE)
    assert result(split)["rows_digest"] == result(whole)["rows_digest"]


def stop_after(recipe: Recipe, steps: int) -> Recipe:
    return replace(recipe, max_steps=steps)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("steps", [3, 5])
def test_a_run_in_two_parts_ends_with_the_bits_of_one_that_was_never_stopped(
    tmp_path: Path, name: Any, steps: int, channels_last: bool
) -> None:
    # Steps 3 and 5: within an epoch, and at the end of one. The schedule does not depend on where the run ends.
    optim = Optim(name=name, lr=0.01, weight_decay=0.01, warmup_steps=4, grad_clip_norm=1.0)
    recipe = replace(SMALL, optim=optim, channels_last=channels_last)
    whole = train(recipe, tmp_path / "whole")
    train(stop_after(recipe, steps), tmp_path / "parts")
    parts = train(recipe, tmp_path / "parts")
    assert same_bits(weights(parts), weights(whole))
    assert result(parts)["rows_digest"] == result(whole)["rows_digest"]
    assert losses(parts) == losses(whole)


def test_dropout_and_batch_norm_resume_from_a_checkpoint_as_if_never_stopped(tmp_path: Path) -> None:
    recipe = Noisy()
    whole = train(recipe, tmp_path / "whole")
    train(stop_after(recipe, 10), tmp_path / "parts")
    parts = train(recipe, tmp_path / "parts")
    assert same_bits(weights(parts), weights(whole))
    assert losses(parts) == losses(whole)


def killed_after(recipe: Recipe, folder: Path, steps: int) -> RunDirectory:
    """A run as it is found after a kill: its last checkpoint is that of `steps`."""
    run = train(stop_after(recipe, steps + 1), folder, checkpoints=Checkpoints(every_steps=steps))
    run.delete_checkpoint(steps + 1)
    (folder / "result.json").unlink()
    return run


def test_the_mean_loss_between_logged_steps_survives_a_stop(tmp_path: Path) -> None:
    recipe = replace(SMALL, epochs=4, log_every_steps=7)
    whole = train(recipe, tmp_path / "whole")
    killed_after(recipe, tmp_path / "parts", 9)
    assert losses(train(recipe, tmp_path / "parts")) == losses(whole)


@dataclass(frozen=True)
class Augmented(Noisy):
    """Noise is added to the inputs, and the batch norm is frozen."""

    def build_model(self) -> nn.Module:
        model = super().build_model()
        assert isinstance(model, nn.Sequential)
        model[1].eval()
        return model

    def preprocess(self, batch: Batch) -> Batch:
        return {**batch, "inputs": batch["inputs"] + torch.randn_like(batch["inputs"])}


@pytest.mark.parametrize("stop", [5, 10])
def test_random_preprocessing_and_frozen_layers_resume_as_if_never_stopped(tmp_path: Path, stop: int) -> None:
    whole = train(Augmented(), tmp_path / "whole")
    killed_after(Augmented(), tmp_path / "parts", stop)
    parts = train(Augmented(), tmp_path / "parts")
    assert losses(parts) == losses(whole)
    assert same_bits(weights(parts), weights(whole))
    assert weights(whole)["1.num_batches_tracked"] == 0


def test_a_recipe_needs_no_targets(tmp_path: Path) -> None:
    class Unsupervised(Noisy):
        def dataset(self, split: Split) -> ArrayDataset:
            return ArrayDataset(inputs=super().dataset(split).columns["inputs"])

        def build_model(self) -> nn.Module:
            return nn.Linear(4, 4)

        def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
            return (outputs - batch["inputs"]).square().mean(1)

        def metrics(self) -> Any:
            return Loss()

    assert list(result(train(Unsupervised(), tmp_path))["metrics"]) == ["val/loss"]


def test_a_batch_larger_than_the_data_is_the_data(tmp_path: Path) -> None:
    whole, larger = (
        train(replace(SMALL, global_batch_size=size, evaluate_every_steps=1), tmp_path / str(size))
        for size in (70, 70_000)
    )
    assert losses(whole) == losses(larger)


def test_the_seed_decides_the_run(tmp_path: Path) -> None:
    one, again, other = (
        train(replace(SMALL, seed=seed), tmp_path / name) for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    assert same_bits(weights(one), weights(again))
    assert losses(one) != losses(other)


def test_another_seed_for_the_weights_leaves_the_order_as_it_is(tmp_path: Path) -> None:
    one, same, other = (
        train(replace(Noisy(), init_seed=seed), tmp_path / str(seed)) for seed in (None, Noisy().seed, 5)
    )
    assert same_bits(weights(one), weights(same))
    assert losses(one) != losses(other)
    assert result(one)["rows_digest"] == result(other)["rows_digest"]


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    recipe = replace(SMALL, max_steps=1, optim=Optim(name="sgd", lr=1.0, grad_clip_norm=0.01))
    torch.manual_seed(recipe.seed)
    before = recipe.build_model().state_dict()
    after = weights(train(recipe, tmp_path))
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm().item()
    assert moved == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda recipe: replace(recipe, channels_last=True), id="channels_last"),
        pytest.param(lambda recipe: replace(recipe, compile=True), id="compile", marks=pytest.mark.slow),
    ],
)
def test_how_it_is_computed_changes_no_loss(tmp_path: Path, change: Callable[[Recipe], Recipe]) -> None:
    plain = train(in_float64(SMALL), tmp_path / "plain")
    changed = train(change(in_float64(SMALL)), tmp_path / "changed")
    assert losses(changed) == pytest.approx(losses(plain), rel=TOLERANCE)
    assert result(changed)["rows_digest"] == result(plain)["rows_digest"]


def test_bf16_changes_the_losses_little(tmp_path: Path) -> None:
    plain, changed = (
        train(replace(SMALL, max_steps=3, precision=precision), tmp_path / precision) for precision in ("fp32", "bf16")
    )
    # Each of the three layers rounds its inputs, weights and outputs by at most 2^-9 of them, 0.2 %.
    assert losses(changed) == pytest.approx(losses(plain), rel=9 * 2**-9)
    assert losses(changed) != losses(plain)
    assert result(changed)["rows_digest"] == result(plain)["rows_digest"]


def test_evaluation_counts_every_row_once_and_leaves_training_as_it_was(tmp_path: Path) -> None:
    recipe = Noisy()
    seldom = train(recipe, tmp_path / "seldom")
    often = train(replace(recipe, evaluate_every_steps=2, micro_batch_size=8), tmp_path / "often")
    assert losses(often) == losses(seldom)
    metrics = result(often)["metrics"]
    assert metrics["val/accuracy"] * 50 == pytest.approx(round(metrics["val/accuracy"] * 50))


OFTEN = Checkpoints(every_seconds=1e-9, keep=100)


def test_checkpoints_by_the_clock_change_nothing_that_is_learned(tmp_path: Path) -> None:
    recipe = Noisy(epochs=2)
    often = train(recipe, tmp_path / "often", checkpoints=OFTEN)
    seldom = train(recipe, tmp_path / "seldom", checkpoints=replace(OFTEN, every_seconds=3600.0))
    assert often.checkpoint_steps() == list(range(1, 17))
    assert seldom.checkpoint_steps() == [8, 16]
    assert same_bits(weights(often), weights(seldom))
    assert losses(often) == losses(seldom)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_all_workers_agree_on_the_steps_of_checkpoints_by_the_clock(tmp_path: Path) -> None:
    run = train(Noisy(epochs=2), tmp_path, num_workers=2, checkpoints=OFTEN)
    assert run.checkpoint_steps() == list(range(1, 17))


def test_the_best_and_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run = train(replace(SMALL, epochs=8), tmp_path, checkpoints=Checkpoints(every_steps=2, keep=3))
    lines = [line for line in run.metrics() if "val/accuracy" in line]
    best = min(lines, key=lambda line: (-line["val/accuracy"], line["val/loss"], line["step"]))["step"]
    assert result(run)["best_checkpoint"] == best == run.checkpoint_step("best")
    assert run.checkpoint_steps() == sorted({best, 36, 38, 40})


def test_a_loss_that_is_a_mean_is_refused(tmp_path: Path) -> None:
    class Mean(Noisy):
        def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
            return F.cross_entropy(outputs, batch["targets"])

    with pytest.raises(UserError, match=r"shape \(\) for 7 rows.*reduction='none'"):
        train(Mean(), tmp_path)


@pytest.mark.parametrize(
    ("column", "says"),
    [([1, 2], "is list for one row"), (np.array(["a"]), "is <U1 for one row"), (np.zeros(3), "is float64 for one row")],
)
def test_columns_that_are_no_arrays_of_numbers_are_refused(tmp_path: Path, column: Any, says: str) -> None:
    class Odd:
        def __len__(self) -> int:
            return 3

        def __getitems__(self, rows: Any) -> dict[str, Any]:
            return {"inputs": column}

    class OddRows(Noisy):
        def dataset(self, split: Split) -> Any:
            return Odd()

    with pytest.raises(DataError, match=f"column 'inputs' of the rows to train on {says}"):
        train(OddRows(), tmp_path)


def test_synchronised_batch_norm_is_refused_on_several_cpu_workers(tmp_path: Path) -> None:
    recipe = replace(Noisy(), sync_batch_norm=True)
    with pytest.raises(UserError, match="--sync-batch-norm needs GPUs"):
        build_model(recipe, World(rank=0, size=2, device=torch.device("cpu")))
    alone = build_model(recipe, World(rank=0, size=1, device=torch.device("cpu")))
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in alone.modules())


@pytest.mark.gpu
def test_a_gpu_takes_the_same_steps(tmp_path: Path) -> None:
    on_cpu = train(SMALL, tmp_path / "cpu", use_gpu="no")
    on_gpu = train(SMALL, tmp_path / "gpu", use_gpu="yes")
    assert losses(on_gpu) == pytest.approx(losses(on_cpu), abs=1e-3)
    assert result(on_gpu)["rows_digest"] == result(on_cpu)["rows_digest"]
