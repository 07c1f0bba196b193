"""Runs on an object store: a real S3 server, which fails now and then."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from blitz.api.train_run import TrainSettings
from blitz.cli import evaluate
from blitz.cli.train import train as train_job
from blitz.errors import UserError
from blitz.launch.scale import Scale
from blitz.optim import Optim
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.storage import open_location
from blitz.training.loop import Checkpoints
from tests import running
from tests.float64 import TOLERANCE, in_float64
from tests.object_store import Fault, Line, uri_of
from tests.running import losses, result, same_bits, weights

RECIPE = Digits(epochs=2, log_every_steps=1, global_batch_size=31, optim=Optim(name="momentum", lr=0.01))
"""47 steps an epoch, 94 in all."""
CHECKPOINTS = Checkpoints(every_steps=10)
FLAGS = shlex.split(
    "digits --epochs 2 --global-batch-size 31 --log-every-steps 1 --checkpoint.every-steps 10 --run run"
    " --optim.name momentum --optim.lr 0.01 --optim.schedule constant --optim.warmup-steps 0"
)


def train(storage: str, *, recipe: Digits = RECIPE, num_workers: int = 0) -> RunDirectory:
    scale = Scale(num_workers=num_workers, use_gpu="no")
    train_job(TrainSettings(recipe, run="run", storage=storage, checkpoint=CHECKPOINTS, scale=scale, report=False))
    return RunDirectory.of(storage, "run")


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(str(tmp_path_factory.mktemp("on_disk")))


def assert_same(run: RunDirectory, other: RunDirectory) -> None:
    assert same_bits(weights(run), weights(other))
    assert losses(run) == losses(other)
    assert result(run) == result(other)
    assert run.checkpoint_steps() == other.checkpoint_steps()


def test_a_run_on_s3_is_stopped_continued_and_evaluated_as_on_a_disk(
    on_disk: RunDirectory, s3_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = uri_of(s3_port, tmp_path.name)
    train(storage, recipe=Digits(**{**vars(RECIPE), "max_steps": 33}))
    run = train(storage)
    assert "continues from step 33 of 94" in capsys.readouterr().out
    assert_same(run, on_disk)
    evaluate.main([run.uri, "--scale.num-workers", "0"])
    evaluation = run.read_json(f"evaluations/val-{result(run)['best_checkpoint']}.json")
    assert evaluation is not None
    assert f"{evaluation['figures']['accuracy']:.4f}" in capsys.readouterr().out


def test_a_run_killed_while_it_uploads_a_checkpoint_resumes_from_the_one_before(
    on_disk: RunDirectory, s3_port: int, tmp_path: Path
) -> None:
    storage = uri_of(s3_port, tmp_path.name)
    with Line(s3_port) as line:
        line.when("checkpoints/30/optimizer", lambda: process.kill())
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.train", *FLAGS, "--storage", uri_of(line.port, tmp_path.name)],
            stdout=subprocess.DEVNULL,
        )
        process.wait()
    run = RunDirectory.of(storage, "run")
    assert run.checkpoint_steps() == [10, 20]
    files, path = open_location(run.uri)
    assert files.get_file_info(f"{path}/checkpoints/30/weights.safetensors").is_file
    assert_same(train(storage), on_disk)


@pytest.mark.parametrize("fault", ["hangs up", "500", "503", pytest.param("is silent", marks=pytest.mark.slow)])
def test_a_storage_that_fails_for_a_while_loses_nothing(
    on_disk: RunDirectory, s3_port: int, tmp_path: Path, fault: Fault
) -> None:
    with Line(s3_port) as line:
        # More often than the client repeats a request before it is known to be the right storage.
        line.when("checkpoints/30/weights", lambda: line.fail(fault, requests=1 if fault == "is silent" else 8))
        run = train(uri_of(line.port, tmp_path.name))
        assert line.works
        assert_same(run, on_disk)


def test_a_storage_that_fails_for_good_ends_the_run_with_an_error(s3_port: int, tmp_path: Path) -> None:
    with Line(s3_port) as line:
        line.when("checkpoints/94/weights", lambda: line.fail("hangs up", requests=1_000_000))
        with pytest.raises(UserError, match=r"--storage: .* cannot be written"):
            running.train(RECIPE, uri_of(line.port, tmp_path.name), checkpoints=CHECKPOINTS)
    run = RunDirectory.of(uri_of(s3_port, tmp_path.name))
    assert run.checkpoint_steps()[-1] == 90
    assert not run.exists("result.json")


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_two_ray_workers_train_on_s3(s3_port: int, tmp_path: Path) -> None:
    exact = in_float64(RECIPE)
    on_disk = train(str(tmp_path), recipe=exact)
    run = train(uri_of(s3_port, tmp_path.name), recipe=exact, num_workers=2)
    assert losses(run) == pytest.approx(losses(on_disk), rel=TOLERANCE)
    assert result(run)["rows_digest"] == result(on_disk)["rows_digest"]
    assert run.checkpoint_steps() == on_disk.checkpoint_steps()
