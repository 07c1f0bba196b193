"""A run on Ray that hangs, four times and each time otherwise: it is named, and the run restarts and ends as if not."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset, Columns
from blitz.data.plan import Split
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.run_files.goodput import goodput
from blitz.training.loop import Checkpoints
from tests.float64 import TOLERANCE, in_float64
from tests.running import goodput_in, losses, result, train, train_workers
from tests.waiting import wait_until

TIMEOUT_S = 12.0
"""Longer than rows are late on a busy machine."""


def first_time(folder: str, name: str) -> bool:
    """Whether nobody has asked this before."""
    try:
        Path(folder, name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Deadlocked(ArrayDataset):
    """Its row 7 can be fetched once; whoever fetches it a second time waits for ever, and a third time it is there."""

    in_memory = False
    folder = ""

    def __getitems__(self, rows: npt.NDArray[np.int64]) -> Columns:
        if 7 in rows and not first_time(self.folder, "fetched") and first_time(self.folder, "hang 0"):
            threading.Event().wait()
        return super().__getitems__(rows)


class Hanging(nn.Module):
    """Hangs at a pass over training rows, at each start of the ranks in another way."""

    def __init__(self, model: nn.Module, folder: str) -> None:
        super().__init__()
        self.model, self.folder, self.passes = model, folder, 0
        self.hangs = len(list(Path(folder).glob("hang *")))
        self.group: Any = dist.new_group() if dist.is_initialized() else None

    def forward(self, images: Tensor) -> Tensor:
        self.passes += self.training
        if self.group is not None and self.training and self.passes == 4:
            if self.hangs == 1 and dist.get_rank() == 1 and first_time(self.folder, "hang 1"):
                while True:
                    pass
            if self.hangs == 2 and dist.get_rank() == 0 and first_time(self.folder, "hang 2"):
                dist.all_reduce(torch.ones(1), group=self.group)
            if self.hangs == 3:
                first_time(self.folder, "waits")
                # Until the test has stopped one of the ranks.
                wait_until(Path(self.folder, "hang 3").exists)
        outputs: Tensor = self.model(images)
        return outputs


@dataclass(frozen=True)
class HangingDigits(Digits):
    folder: str = ""

    def dataset(self, split: Split) -> ArrayDataset:
        made = super().dataset(split)
        if split == "val":
            return made
        rows = Deadlocked(**made.columns)
        rows.folder = self.folder
        return rows

    def build_model(self) -> nn.Module:
        return Hanging(super().build_model(), self.folder)


SMALL: dict[str, Any] = {
    "epochs": 3,
    "max_train_rows": 200,
    "max_eval_rows": 40,
    "global_batch_size": 20,
    "log_every_steps": 1,
}


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.usefixtures("ray_runtime")
def test_each_kind_of_hang_is_named_and_the_run_restarts_and_ends_as_without(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder := tmp_path / "marks").mkdir()
    recipe = in_float64(HangingDigits(**SMALL, folder=str(folder)))
    run, stopped = RunDirectory.of(str(tmp_path / "run")), list[psutil.Process]()

    def hangs() -> list[str]:
        return [event["error"] for event in run.events() if event["what"] == "hang"]

    def stop() -> None:
        wait_until((folder / "waits").exists, seconds=1800)
        stopped.append(train_workers()[1])
        stopped[0].suspend()
        (folder / "hang 3").touch()

    stops = threading.Thread(target=stop, daemon=True)
    stops.start()
    train(
        recipe,
        run.uri,
        num_workers=2,
        max_failures=12,
        checkpoints=Checkpoints(every_steps=4),
        feed="stream",
        hang_timeout_s=TIMEOUT_S,
    )
    # On a machine that is busy enough the run may seem to hang elsewhere as well.
    rows = next(one for one in hangs() if " in __getitems__; rank " in one)
    assert rows.startswith("rows are not fetched, by process ")
    loop = next(one for one in hangs() if one.startswith("rank 1 on ") and one.endswith(" in forward"))
    assert ": computing for " in loop
    # Of two that wait for each other in different places it does not show which one is wrong.
    assert [one for one in hangs() if " in forward; rank 1 on " in one and one.startswith("rank 0 on ")]
    stop_signal = next(one for one in hangs() if "no sign of life for " in one)
    assert f"(process {stopped[0].pid}) hangs at step " in stop_signal
    texts = [run.read(f"logs/{name}").decode() for name in run.names("logs") if name.endswith("-hang.txt")]
    assert all("rank 0 on " in text and "rank 1 on " in text for text in texts)
    assert all(text.count(" in _work\n") == 2 for text in texts)
    assert "the run restarts from its newest checkpoint" in capfd.readouterr().out
    spent = goodput(run.events())
    assert spent is not None
    # The stopped rank continues while its stack is taken, so that its hang may end as a long step.
    assert spent.seconds["hangs"] > 3 * 0.75 * TIMEOUT_S
    assert goodput_in(run) == spent.to_json()
    calm = train(recipe, tmp_path / "calm")
    assert result(run)["rows_digest"] == result(calm)["rows_digest"]
    assert losses(run) == pytest.approx(losses(calm), rel=TOLERANCE)
