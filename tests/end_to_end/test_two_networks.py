"""Two networks with an optimizer each, and layers unfrozen on the way: killed, and on several workers."""

import random
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from torch import nn

from blitz.recipe import Optim
from tests.end_to_end.test_kills import ONE_THREAD, at_step
from tests.running import losses, result, same_bits, train, weights
from tests.training.test_groups import Grouped
from tests.two_networks import CHECKPOINTS, TwoNetworks

RANDOM = random.Random(6)


def test_two_networks_that_are_killed_go_on_to_the_bits_of_a_run_that_was_never_stopped(tmp_path: Path) -> None:
    calm = train(TwoNetworks(), tmp_path / "calm", checkpoints=CHECKPOINTS)
    command = [sys.executable, "-m", "tests.two_networks", str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=ONE_THREAD)
    with at_step(RANDOM.randrange(15, 400), tmp_path / "killed", process.kill):
        assert process.wait() == -signal.SIGKILL
    killed = train(TwoNetworks(), tmp_path / "killed", checkpoints=CHECKPOINTS)
    assert same_bits(weights(killed), weights(calm))
    assert losses(killed) == losses(calm)
    assert result(killed) == result(calm)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_two_networks_learn_the_same_on_two_workers(tmp_path: Path) -> None:
    recipe = TwoNetworks(epochs=3)
    alone = train(recipe, tmp_path / "alone")
    together = train(recipe, tmp_path / "together", num_workers=2)
    assert losses(together) == pytest.approx(losses(alone), abs=1e-5)
    assert result(together)["rows_digest"] == result(alone)["rows_digest"]


@dataclass(frozen=True)
class AlikeAnywhere(Grouped):
    """Nothing in it depends on the number of workers, as dropout and batch norm do."""

    def build_model(self) -> nn.Module:
        model = super().build_model()
        assert isinstance(model, nn.Sequential)
        model[1], model[3] = nn.LayerNorm(16), nn.Identity()
        return model


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_layers_are_unfrozen_on_two_workers_as_in_this_process(tmp_path: Path) -> None:
    recipe = AlikeAnywhere(optim=Optim(name="momentum", lr=0.1))
    alone = train(recipe, tmp_path / "alone")
    together = train(recipe, tmp_path / "together", num_workers=2)
    assert losses(together) == pytest.approx(losses(alone), abs=1e-5)
    at_once, frozen = (losses(train(replace(recipe, body_from_step=step), tmp_path / str(step))) for step in (0, None))
    assert losses(alone)[:8] == frozen[:8]
    assert losses(alone) != frozen
    assert losses(alone) != at_once
