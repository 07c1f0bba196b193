"""The feeds of ranks on Ray: all give the rows and losses of a run in this process."""

from pathlib import Path

import pytest

from blitz.launch.scale import FeedName
from blitz.optim import Optim
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
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
