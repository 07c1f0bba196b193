"""Two networks with an optimizer each, and layers unfrozen on the way: killed, and on several workers."""

import random
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import safetensors.torch
from torch import nn

from blitz.optim import Optim
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.initial_weights import resolve_initial_weights
from blitz.training.loop import TrainJob
from tests.end_to_end.test_kills import at_step
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, result, same_bits, train, weights
from tests.training.test_groups import Grouped
from tests.two_networks import CHECKPOINTS, TwoNetworks
from tests.two_processes import run_on_two

RANDOM = random.Random(6)


def test_two_networks_that_are_killed_resume_to_the_bits_of_a_run_that_was_never_stopped(tmp_path: Path) -> None:
    calm = train(TwoNetworks(), tmp_path / "calm", checkpoints=CHECKPOINTS)
    command = [sys.executable, "-m", "tests.two_networks", str(tmp_path / "killed")]
    process = subprocess.Popen(command)
    with at_step(RANDOM.randrange(15, 400), tmp_path / "killed", process.kill):
        assert process.wait() == -signal.SIGKILL
    killed = train(TwoNetworks(), tmp_path / "killed", checkpoints=CHECKPOINTS)
    assert same_bits(weights(killed), weights(calm))
    assert losses(killed) == losses(calm)
    assert result(killed) == result(calm)


@dataclass(frozen=True)
class AlikeAnywhere(Grouped):
    """Nothing in it depends on the number of workers, as dropout and batch norm do."""

    def build_model(self) -> nn.Module:
        model = super().build_model()
        assert isinstance(model, nn.Sequential)
        model[1], model[3] = nn.LayerNorm(16), nn.Identity()
        return model


def job_of(recipe: Recipe, folder: Path) -> TrainJob:
    plan = recipe.plan(len(recipe.dataset("train")), len(recipe.dataset("val")))
    return TrainJob(recipe, plan, RunDirectory.of(str(folder)))


def test_two_processes_learn_two_networks_unfreeze_layers_and_take_other_initial_weights_as_one_does(
    tmp_path: Path,
) -> None:
    networks = in_float64(TwoNetworks(epochs=3))
    layers = in_float64(AlikeAnywhere(optim=Optim(name="momentum", lr=0.1)))
    source = train(replace(layers, body_from_step=0), tmp_path / "source")
    source_file = tmp_path / "source.safetensors"
    source_file.write_bytes(safetensors.torch.save(weights(source)))
    carried, initial = resolve_initial_weights(replace(layers, init_from=str(source_file)))
    assert initial is not None
    initial.write(RunDirectory.of(str(tmp_path / "two" / "carried")))
    recipes: dict[str, Recipe] = {"networks": networks, "layers": layers, "carried": carried}
    (tmp_path / "two").mkdir(exist_ok=True)
    run_on_two([job_of(recipe, tmp_path / "two" / name) for name, recipe in recipes.items()], tmp_path / "two")
    for name, recipe in recipes.items():
        alone, together = train(recipe, tmp_path / name), RunDirectory.of(str(tmp_path / "two" / name))
        assert losses(together) == pytest.approx(losses(alone), rel=TOLERANCE)
        assert result(together)["rows_digest"] == result(alone)["rows_digest"]
    at_once, frozen = (losses(train(replace(layers, body_from_step=step), tmp_path / str(step))) for step in (0, None))
    found = losses(RunDirectory.of(str(tmp_path / "layers")))
    assert found[:8] == frozen[:8]
    assert found not in (frozen, at_once)
    assert losses(RunDirectory.of(str(tmp_path / "carried")))[0] != pytest.approx(found[0], rel=0.01)
