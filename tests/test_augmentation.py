"""Augmentation of images: what each kind does, by random numbers of the seed, the epoch and the row alone."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from blitz.augmentation import Augmentation, loss_of_mixed
from blitz.data import mixing, policies
from blitz.data.arrays import FAULT, ArrayDataset
from blitz.data.order import Rows
from blitz.data.plan import Shares, Split, fetch
from blitz.errors import UserError
from blitz.models.lenet5 import LeNet
from blitz.randomness import Use, key_for, keys_for, uniforms
from blitz.recipes.cifar10 import Cifar10
from blitz.training.batches import step_batches
from blitz.training.world import World
from tests.running import losses, same_bits, train, weights
from tests.training.test_loop import killed_after

ALL = Augmentation(flip=True, min_area=0.5, color=0.2, shift=3, policy="randaugment", erase=0.5, mixup=0.4, cutmix=1.0)
ROWS, INVALID = 21, 5


def u(rows: int, count: int) -> Tensor:
    """Uniform numbers of some rows."""
    keys = keys_for(key_for(Use.AUGMENTATION, 0, 0), np.arange(rows, dtype=np.uint64))
    return torch.from_numpy(uniforms(keys, count))


class Noise(ArrayDataset):
    """Noise, of which one row is invalid."""

    def __getitems__(self, rows: Rows) -> dict[str, Any]:
        return {**super().__getitems__(rows), FAULT: np.where(rows == INVALID, "x.csv,7,broken", "")}


@dataclass(frozen=True)
class Noisy(Cifar10):
    """LeNet on noise."""

    global_batch_size: int = 6
    log_every_steps: int = 1
    augmentation: Augmentation = ALL

    def dataset(self, split: Split) -> ArrayDataset:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (ROWS, 3, 32, 32)).astype(np.uint8)
        return Noise(inputs=images, targets=random.integers(0, 10, ROWS))

    @property
    def max_bad_fraction(self) -> float:
        return 0.5


def augmented_rows(recipe: Noisy, world_size: int) -> dict[tuple[int, int], list[Tensor]]:
    """The augmented columns of every row that counts, by epoch and row, put together from all ranks."""
    dataset, found = recipe.dataset("train"), {}
    plan = recipe.plan(len(dataset), 0)
    shares = Shares.of(plan, world_size=world_size, row_bytes=3072)
    for rank in range(world_size):
        world = World(0, 1, torch.device("cpu"))
        for block in (fetch(dataset, shares, chunk, rank) for chunk in shares.chunks(0)):
            for batch in step_batches(block, plan, world, rows=plan.batch_rows(block.chunk)):
                ((columns, counted),) = batch.micro_batches(recipe)
                for at in counted.nonzero().flatten().tolist():
                    key = (batch.epoch, int(batch.numbers[at]))
                    assert key not in found
                    found[key] = [column[at] for column in columns.values()]
    return found


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_rows_are_augmented_and_mixed_alike_on_any_number_of_workers(world_size: int) -> None:
    recipe = Noisy()
    alone, parts = (augmented_rows(recipe, size) for size in (1, world_size))
    assert len(alone) == 2 * (ROWS - 1)
    assert alone.keys() == parts.keys()
    for key, columns in alone.items():
        for one, other in zip(columns, parts[key], strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    # Of 21 rows in batches of 6 the last three batches' ends and the partner of the invalid row are their own partners.
    assert sum(bool((columns[-1] == 1).all()) for columns in alone.values()) < len(alone) / 2


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    recipe = Noisy()
    killed_after(recipe, tmp_path / "parts", 5)
    parts, whole = train(recipe, tmp_path / "parts"), train(recipe, tmp_path / "whole")
    assert same_bits(weights(parts), weights(whole))
    assert losses(parts) == losses(whole)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
@pytest.mark.parametrize("strength", [-30, -9, 0, 4, 30])
def test_every_operation_is_torchvisions(policy: policies.Policy, strength: int) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32)).astype(np.uint8))
    bilinear = InterpolationMode.BILINEAR
    theirs = (v2.RandAugment if policy == "randaugment" else v2.TrivialAugmentWide)(interpolation=bilinear)
    names = dict(zip(policies.operations(), theirs._AUGMENTATION_SPACE, strict=True))
    for name, (is_signed, _) in policies.operations().items():
        if strength < 0 and not is_signed:
            continue
        magnitudes, _ = theirs._AUGMENTATION_SPACE[names[name]]
        values = magnitudes(31, 32, 32)
        magnitude = 0.0 if values is None else float(values[abs(strength)]) * (1 if strength >= 0 else -1)
        same = theirs._apply_image_or_video_transform(images, names[name], magnitude, bilinear, theirs._fill)
        ours = policies.operated(images, name, strength, policy)
        # Magnitudes in float32 there and float64 here may differ in the last bit, and so a pixel by one.
        assert (ours.int() - same.int()).abs().max() <= 1, name


def test_each_image_has_operations_of_its_own() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8)).astype(np.uint8))
    drawn = u(40, 2 * policies.DRAWS)
    both = policies.augmented(images, drawn, "randaugment", 9)
    alone = [policies.augmented(images[row : row + 1], drawn[row : row + 1], "randaugment", 9) for row in range(40)]
    assert torch.equal(both, torch.cat(alone))
    of_any_strength = policies.augmented(images[:1].expand(40, -1, -1, -1), drawn[:, :3], "trivialaugment", 9)
    assert len(of_any_strength.flatten(1).unique(dim=0)) > 20


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    rows = 20_000
    shares = mixing.beta(u(rows, mixing.BETA_DRAWS), alpha).double()
    variance = 1 / (4 * (2 * alpha + 1))
    # Five standard errors of the mean; the fourth moment of a number in [0, 1] is at most 1/16.
    assert shares.mean().item() == pytest.approx(0.5, abs=5 * (variance / rows) ** 0.5)
    assert shares.var().item() == pytest.approx(variance, abs=5 * (1 / 16 / rows) ** 0.5)
    assert ((shares >= 0) & (shares <= 1)).all()


def test_a_rectangle_is_erased_in_a_share_of_the_images() -> None:
    images = torch.rand(400, 3, 20, 20)
    erased = mixing.erased(images, u(400, 5), 0.25)
    changed = (erased != images).any(1)
    share = changed.flatten(1).any(1).double().mean().item()
    assert share == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 400) ** 0.5)
    for image, before, where in zip(erased, images, changed, strict=True):
        if where.any():
            rows, columns = where.any(1).nonzero(), where.any(0).nonzero()
            inside = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            torch.testing.assert_close(inside, before.mean((1, 2))[:, None, None].expand_as(inside))
            # A side is rounded to whole pixels.
            assert 0.01 < where.double().mean() < 0.4


def test_a_cut_image_keeps_the_share_that_is_returned() -> None:
    zeros, ones = torch.zeros(50, 1, 16, 16), torch.ones(50, 1, 16, 16)
    images, own = mixing.cut_mixed(zeros, ones, u(50, 2), torch.linspace(0, 1, 50))
    torch.testing.assert_close(1 - images.mean((1, 2, 3)), own)
    assert own[-1] == 1
    assert own.min() < 0.5


def test_the_loss_of_mixed_rows_is_that_of_their_soft_targets() -> None:
    scores, targets, others = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 1, 0, 0, 2, 2])
    own = torch.linspace(0, 1, 6)
    batch = {"targets": targets, "partner_targets": others, "own_share": own}
    found = loss_of_mixed(partial(F.cross_entropy, reduction="none"), scores, batch)
    soft = own[:, None] * F.one_hot(targets, 4) + (1 - own[:, None]) * F.one_hot(others, 4)
    torch.testing.assert_close(found, F.cross_entropy(scores, soft, reduction="none"))


def test_shifts_are_whole_pixels() -> None:
    recipe = Noisy(augmentation=Augmentation(flip=False, min_area=1.0, shift=2))
    images = recipe.dataset("train").columns["inputs"].astype(np.float32)
    shifted = {key: columns[0] * 127.5 + 127.5 for key, columns in augmented_rows(recipe, 1).items()}
    found = set()
    for (_, row), image in shifted.items():
        middle = image[:, 4:-4, 4:-4].numpy()
        fits = [
            (x, y)
            for x in range(-2, 3)
            for y in range(-2, 3)
            if np.abs(images[row, :, 4 + y : 28 + y, 4 + x : 28 + x] - middle).max() < 0.1
        ]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) > 10


class LeftHalf(nn.Module):
    """Two outputs that are not the same for an image and its mirror image."""

    def forward(self, images: Tensor) -> Tensor:
        return images[..., : images.shape[-1] // 2].mean((2, 3))[:, :2]


def test_images_grow_to_the_full_size_by_the_epoch() -> None:
    growing = Augmentation(flip=False, min_area=1.0, first_size=16, growing_epochs=3)
    batch = {"inputs": torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8), "targets": torch.zeros(2)}

    class Draws:
        epoch, partners = 0, torch.arange(2)

        def __call__(self, count: int) -> Tensor:
            return u(2, count)

    draws, sizes = Draws(), []
    for draws.epoch in range(5):
        sizes.append(growing.applied(batch, draws, size=40)["inputs"].shape[-1])
    assert sizes == [16, 24, 32, 40, 40]


def test_views_are_averaged_in_evaluation_alone() -> None:
    model, images = LeftHalf(), torch.rand(3, 3, 8, 8)
    views = Augmentation(views="flip")
    assert torch.equal(views.outputs(model.train(), images, classifies=True), model(images))
    averaged = views.outputs(model.eval(), images, classifies=True)
    both = torch.stack([model(images).softmax(1), model(images.flip(-1)).softmax(1)])
    torch.testing.assert_close(averaged.softmax(1), both.mean(0))
    numbers = views.outputs(model, images, classifies=False)
    torch.testing.assert_close(numbers, (model(images) + model(images.flip(-1))) / 2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mixup": 2.0}, "--augmentation.mixup is 2.0; it must be in"),
        ({"erase": 1.5}, "--augmentation.erase is 1.5"),
        ({"strength": 31}, "--augmentation.strength is 31"),
        ({"operations": 0}, "--augmentation.operations is 0"),
        ({"first_size": 16}, "this model takes one size"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Cifar10(augmentation=Augmentation(**settings))
    with pytest.raises(UserError, match=r"--augmentation\.policy and --augmentation\.mixup swaps or moves points"):
        replace(ALL, flip=None, cutmix=None).check(size=32, has_points=True)


def test_lenet_is_evaluated_over_both_views() -> None:
    recipe, model = Noisy(augmentation=Augmentation(views="flip")), LeNet(channels=3, classes=10).eval()
    batch = recipe.preprocess({"inputs": torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)})
    mirrored = {"inputs": batch["inputs"].flip(-1)}
    torch.testing.assert_close(recipe.forward(model, batch), recipe.forward(model, mirrored))
