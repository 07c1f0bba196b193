"""The learning-rate finder and the batch-size finder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import blitz
from blitz.api.find_batch_size import BatchSizes, find_batch_sizes, size_lines
from blitz.api.find_rate import PICTURE, LearningRates, find_rate
from blitz.api.train_run import TrainSettings
from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.recipe import Batch, Recipe
from blitz.recipes.digits import Digits
from tests.training.test_loop import Noisy


def test_the_rate_with_the_steepest_fall_is_proposed_and_what_diverges_is_left_out() -> None:
    rates = np.logspace(-7, 1, 100)
    # Falls from 2 to 1 around 1e-3, and explodes above 1e-1.
    losses = 2 - 1 / (1 + (1e-3 / rates) ** 2) + (rates / 0.3) ** 4
    found = LearningRates(tuple(rates.tolist()), tuple(losses.tolist()))
    assert found.proposed == pytest.approx(1e-3, rel=0.3)
    assert found.lowest is not None
    assert 0.01 < found.lowest < 0.3
    assert LearningRates(tuple(rates.tolist()), tuple((1 + rates).tolist())).proposed is None


def test_the_finder_takes_steps_of_the_loop_at_rising_rates_and_its_rate_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrainSettings(Digits(), run="mine", storage=str(tmp_path))
    found, run = find_rate(settings)
    assert (run.name, run.exists(PICTURE)) == ("mine-find-lr", True)
    assert found.rates == pytest.approx(np.logspace(-7, 1, 101)[: len(found.rates)], rel=1e-6)
    # The same command again takes no further step.
    assert find_rate(settings)[0] == found
    assert blitz.find_lr("digits", run="mine", storage=tmp_path) == found
    assert found.proposed is not None

    def accuracy(rate: float) -> float:
        settings = {"epochs": 2, "optim.lr": rate, "report": False}
        return blitz.train("digits", storage=tmp_path, **settings).metrics["val/accuracy"]  # type: ignore[arg-type]

    # Trained by the proposed rate it is above a rate far below; both far from chance and each other.
    assert accuracy(found.proposed) > accuracy(found.proposed / 300) + 0.1


class Exploding(Noisy):
    """A loss that is not finite at high rates."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return super().loss(outputs, batch).where(outputs.abs().amax(1) < 50, torch.nan)


def test_a_loss_that_is_not_finite_ends_the_curve_and_not_the_command(tmp_path: Path) -> None:
    found, _ = find_rate(TrainSettings(Exploding(), storage=str(tmp_path)))
    assert 10 < len(found.rates) < 100
    assert np.isfinite(found.losses).all()


class Hungry(Recipe):
    """A model whose memory runs out above 16 rows, as torch says it."""

    def dataset(self, split: Split) -> ArrayDataset:
        return ArrayDataset(inputs=np.ones((100, 2), np.float32))

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        if len(batch["inputs"]) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        found: Tensor = model(batch["inputs"])
        return found

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return outputs.square().squeeze(1)


def test_micro_batches_grow_until_memory_runs_out_or_they_bring_nothing(tmp_path: Path) -> None:
    sizes = find_batch_sizes(TrainSettings(Hungry(), storage=str(tmp_path)))
    assert [*sizes.rates][:3] == [2, 4, 8]
    assert sizes.largest <= 16
    assert all(rate > 0 for rate in sizes.rates.values())
    # Sizes that are no faster are not proposed.
    measured = BatchSizes({2: 100.0, 4: 190.0, 8: 300.0, 16: 310.0}, 32)
    assert (measured.proposed, measured.largest) == (8, 16)
    assert "32 do not fit" in "\n".join(size_lines(measured))
