"""What every recipe that ships can do, on few rows: `small_recipes.py` says how each is made small."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from bench.recipes import HEADLINES
from blitz.export.checked_export import export
from blitz.recipe import Recipe
from blitz.recipes import recipe_names
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import Checkpoints, TrainJob
from tests.float64 import TOLERANCE, in_float64
from tests.miniatures import cifar10_in, write_mnist
from tests.running import losses, result, same_bits, train, weights
from tests.small_recipes import SMALL, DataFolders, Small
from tests.two_processes import run_on_two

SmallOf = Callable[[str], Small]
RunOf = Callable[[str], RunDirectory]

every_recipe = pytest.mark.parametrize("name", recipe_names())


def test_every_recipe_is_made_small_and_has_a_headline() -> None:
    assert sorted(SMALL) == recipe_names(), "say in tests/small_recipes.py how it is"
    assert sorted(headline.recipe for headline in HEADLINES) == recipe_names(), "say in bench/recipes.py which it has"


@pytest.fixture(scope="module")
def small_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallOf]:
    vision = tmp_path_factory.mktemp("vision")
    write_mnist(vision)
    with cifar10_in(vision):
        yield cache(lambda name: SMALL[name](DataFolders(tmp_path_factory.mktemp(name), vision)))


@pytest.fixture(scope="module")
def whole_run(small_of: SmallOf, tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    """The run of a recipe in this process that is never stopped."""
    often = Checkpoints(every_steps=7, keep=10)
    return cache(lambda name: train(small_of(name).short, tmp_path_factory.mktemp(f"{name}-whole"), checkpoints=often))


def exact(small: Small) -> Recipe:
    """In float64 where the losses of two workers are those of one."""
    return in_float64(small.short) if small.same_losses else small.short


@pytest.fixture(scope="module")
def run_of_two_processes(small_of: SmallOf, tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    """The run of a recipe on two ranks; all recipes share one start of the two processes."""
    folder = tmp_path_factory.mktemp("two_processes")
    jobs = {}
    for name in SMALL:
        recipe = exact(small_of(name)).fitted()
        plan = recipe.plan(len(recipe.dataset("train")), len(recipe.dataset("val")))
        jobs[name] = TrainJob(recipe, plan, RunDirectory.of(str(folder / name)))
    run_on_two(list(jobs.values()), folder)
    return lambda name: jobs[name].run


@every_recipe
def test_a_recipe_overfits_one_batch(name: str, small_of: SmallOf, tmp_path: Path) -> None:
    seen = losses(train(small_of(name).one_batch, tmp_path))
    assert len(seen) == 100
    assert seen[-1] < 0.1 * seen[0]


@every_recipe
def test_a_recipe_resumes_after_a_kill_to_the_bits_of_the_whole_run(
    name: str, small_of: SmallOf, whole_run: RunOf, tmp_path: Path
) -> None:
    whole = whole_run(name)
    # As the run is found if it is killed within the second epoch.
    shutil.copytree(whole.uri, tmp_path / "killed")
    (tmp_path / "killed" / "result.json").unlink()
    killed = RunDirectory.of(str(tmp_path / "killed"))
    killed.delete_checkpoint(10)
    assert max(killed.checkpoint_steps()) == 7
    train(small_of(name).short, killed.uri)
    assert same_bits(weights(killed), weights(whole))
    assert losses(killed) == losses(whole)
    assert result(killed)["rows_digest"] == result(whole)["rows_digest"]


@every_recipe
def test_two_processes_of_torch_distributed_take_the_rows_and_the_steps_of_one(
    name: str, small_of: SmallOf, whole_run: RunOf, run_of_two_processes: RunOf, tmp_path: Path
) -> None:
    together, small = run_of_two_processes(name), small_of(name)
    alone = train(exact(small), tmp_path) if small.same_losses else whole_run(name)
    assert result(together)["rows_digest"] == result(alone)["rows_digest"]
    assert len(losses(together)) == 10
    if small.same_losses:
        assert losses(together) == pytest.approx(losses(alone), rel=TOLERANCE)


@every_recipe
def test_a_recipe_is_exported_as_it_computes(name: str, small_of: SmallOf, whole_run: RunOf) -> None:
    recipe = small_of(name).short.fitted()
    made = export(recipe, whole_run(name), 10, "torch_export", quantize=False, tolerance=1e-4)
    assert made.rows >= 2
    assert made.difference is not None
