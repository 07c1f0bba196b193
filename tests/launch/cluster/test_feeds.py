"""The feeds of ranks on Ray: all give the rows and losses of a run in this process, however long the run is."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from blitz.launch.scale import FeedName
from blitz.optim import Optim
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, result, train

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_runtime")]

RECIPE = in_float64(
    Digits(
        epochs=2,
        global_batch_size=31,
        max_train_rows=200,
        max_eval_rows=100,
        log_every_steps=1,
        optim=Optim(name="momentum", lr=0.01),
    )
)
"""7 steps an epoch; 2 workers do not divide the batch."""


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(RECIPE, tmp_path_factory.mktemp("in_process"))


@pytest.mark.parametrize("feed", ["memory", "stream", "tasks"])
def test_every_feed_gives_the_rows_of_a_run_in_this_process(
    feed: FeedName, in_process: RunDirectory, tmp_path: Path
) -> None:
    on_ray = train(RECIPE, tmp_path, num_workers=2, feed=feed)
    assert result(on_ray)["rows_digest"] == result(in_process)["rows_digest"]
    assert len(losses(on_ray)) == 14
    assert losses(on_ray) == pytest.approx(losses(in_process), rel=TOLERANCE)


class ToTheFirstEvaluation(Digits):
    """Digits that stop at their first evaluation."""

    def after_evaluation(self, model: nn.Module, metrics: Mapping[str, float], run: Any) -> bool:
        return False


LONG = in_float64(
    ToTheFirstEvaluation(
        epochs=10**9,
        max_steps=10**9,
        global_batch_size=31,
        max_eval_rows=100,
        evaluate_every_steps=5,
        log_every_steps=1,
    )
)
"""A list of its steps or blocks would not fit into memory."""


@pytest.mark.slow
def test_a_run_of_a_billion_steps_starts_and_resumes_in_its_middle_through_ray_data(tmp_path: Path) -> None:
    def first_steps(checkpoint: Checkpoint | None = None) -> RunDirectory:
        runs = []
        for num_workers in (0, 2):
            folder = tmp_path / f"{checkpoint is not None}-{num_workers}"
            if checkpoint is not None:
                checkpoint.save(RunDirectory.of(str(folder)))
            runs.append(train(LONG, folder, num_workers=num_workers, feed="stream"))
        here, on_ray = runs
        assert result(on_ray)["rows_digest"] == result(here)["rows_digest"]
        assert losses(on_ray) == pytest.approx(losses(here), rel=TOLERANCE)
        return on_ray

    begun = first_steps()
    assert len(losses(begun)) == result(begun)["steps"] == 5
    fifth = Checkpoint.load(begun, 5)
    middle = 5 * 10**8 + 2
    resumed = first_steps(replace(fifth, step=middle, state={**fifth.state, "step": middle}))
    assert [line["step"] for line in resumed.metrics() if "train/loss" in line] == [middle + 1, middle + 2, middle + 3]
