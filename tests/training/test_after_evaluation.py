"""`after_evaluation`: when it is called, with what, and how it ends a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import blitz
from blitz.errors import RunFailed, UserError
from blitz.launch.local.in_process import world_here
from blitz.launch.scale import Scale
from blitz.recipe import RunFiles
from blitz.recipes.digits import Digits
from blitz.training.packed import why_not_packable
from blitz.training.prepared import prepare
from tests.running import result, same_bits, train, weights

LAST = "calls.jsonl"


@dataclass(frozen=True)
class Watched(Digits):
    """Five steps an epoch; the last epochs are left out once `stops_after` is reached."""

    optim: blitz.Optim = blitz.Optim(lr=0.05)
    epochs: int = 3
    max_train_rows: int | None = 70
    max_eval_rows: int | None = 50
    global_batch_size: int = 16
    stops_after: int | None = blitz.may_change(None)
    fails_at: int | None = blitz.may_change(None)

    def after_evaluation(self, model: nn.Module, metrics: Mapping[str, float], run: RunFiles) -> bool | None:
        step = metrics["step"]
        seen = {
            "step": step,
            "training": model.training or torch.is_grad_enabled(),
            "checkpoint": run.exists(f"checkpoints/{step}/weights.safetensors"),
            "loss": metrics["val/loss"],
        }
        before = run.read(LAST) if run.exists(LAST) else b""
        run.write(LAST, before + f"{json.dumps(seen)}\n".encode())
        if step == self.fails_at:
            raise KeyError("pictures")
        return None if self.stops_after is None else step < self.stops_after


def calls(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / LAST).read_text().splitlines()]


def test_it_is_called_after_each_evaluation_with_its_model_metrics_and_checkpoint(tmp_path: Path) -> None:
    run = train(Watched(), tmp_path)
    losses = [line["val/loss"] for line in run.metrics() if "val/loss" in line]
    seen = [{"step": step, "training": False, "checkpoint": True} for step in (5, 10, 15)]
    assert calls(tmp_path) == [{**one, "loss": loss} for one, loss in zip(seen, losses, strict=True)]


def test_it_changes_nothing_of_what_is_learned(tmp_path: Path) -> None:
    watched, plain = train(Watched(), tmp_path / "watched"), train(Digits(**_plain()), tmp_path / "plain")
    assert same_bits(weights(watched), weights(plain))
    assert result(watched) == result(plain)


def _plain() -> dict[str, Any]:
    return {
        "optim": blitz.Optim(lr=0.05),
        "epochs": 3,
        "max_train_rows": 70,
        "max_eval_rows": 50,
        "global_batch_size": 16,
    }


def test_false_ends_the_run_as_a_finished_one_of_fewer_steps(tmp_path: Path) -> None:
    stops: dict[str, Any] = {"storage": tmp_path, "run": "one", "report": False, "num_workers": 0}
    stopped = blitz.train(Watched(stops_after=10), **stops)
    shorter = train(replace(Watched(), epochs=2), tmp_path / "shorter")
    assert result(stopped.directory) == {**result(shorter), "stopped_before": 15}
    assert same_bits(weights(stopped.directory), weights(shorter))
    # The same call again finds it finished; a longer plan resumes it.
    before = (tmp_path / "one" / "events.jsonl").read_text()
    assert blitz.train(Watched(stops_after=10), **stops).finished
    assert (tmp_path / "one" / "events.jsonl").read_text() == before
    longer = blitz.train(Watched(epochs=4), **stops)
    assert longer.result is not None
    assert longer.result["steps"] == 20


def test_an_error_in_it_is_one_line_and_the_same_command_calls_it_again(tmp_path: Path) -> None:
    where = r"after_evaluation \(test_after_evaluation.py:\d+\) of recipe test_after_evaluation failed at step 10: "
    with pytest.raises(RunFailed, match=where + "KeyError: 'pictures'; mend it") as failed:
        train(Watched(fails_at=10), tmp_path)
    assert "\n" not in str(failed.value)
    train(Watched(), tmp_path)
    assert [one["step"] for one in calls(tmp_path)] == [5, 10, 10, 15]


def test_a_run_that_resumes_after_its_call_does_not_call_it_again(tmp_path: Path) -> None:
    train(replace(Watched(), epochs=2), tmp_path)
    train(Watched(), tmp_path)
    assert [one["step"] for one in calls(tmp_path)] == [5, 10, 15]


def test_a_run_that_was_killed_between_its_stop_and_its_result_stays_stopped(tmp_path: Path) -> None:
    run = train(Watched(stops_after=10), tmp_path)
    (tmp_path / "result.json").unlink()
    train(Watched(stops_after=10), tmp_path)
    assert [one["step"] for one in calls(tmp_path)] == [5, 10]
    assert (result(run)["steps"], result(run)["stopped_before"]) == (10, 15)


def test_a_function_may_be_passed_for_any_recipe_and_for_plain_objects(tmp_path: Path) -> None:
    seen: list[float] = []

    def watch(model: nn.Module, metrics: Mapping[str, float], run: RunFiles) -> bool:
        seen.append(metrics["step"])
        return len(seen) < 2

    blitz.train("digits", after_evaluation=watch, storage=tmp_path, report=False, num_workers=0, **_plain())
    assert seen == [5, 10]
    seen.clear()
    rows = torch.utils.data.TensorDataset(torch.arange(8.0)[:, None], torch.arange(8.0)[:, None])
    net: dict[str, Any] = {"model": nn.Linear(1, 1), "train": rows, "val": rows, "loss": nn.MSELoss()}
    here: dict[str, Any] = {"storage": tmp_path, "report": False, "num_workers": 0}
    blitz.train(**net, after_evaluation=watch, epochs=3, global_batch_size=8, **here)
    assert seen == [1, 2]


def test_what_is_no_function_is_refused_before_anything_starts(tmp_path: Path) -> None:
    for wrong, what in ((5, "is int"), (lambda model: None, r"must take \(model, metrics, run\)")):
        with pytest.raises(UserError, match=what):
            blitz.train("digits", after_evaluation=wrong, storage=tmp_path)  # type: ignore[arg-type]
    assert not [*tmp_path.iterdir()]


def test_trials_that_have_it_are_not_packed() -> None:
    prepared = prepare(Watched())
    reason = why_not_packable(prepared.recipe, prepared.datasets["train"], world=world_here(Scale(use_gpu="no")))
    assert reason == "its after_evaluation is called with one model, not a stack"


@pytest.mark.cluster
def test_on_two_workers_rank_0_calls_it_and_both_stop(tmp_path: Path, ray_runtime: None) -> None:
    run = train(Watched(stops_after=10), tmp_path / "ray", num_workers=2)
    assert (result(run)["steps"], result(run)["stopped_before"]) == (10, 15)
    assert [one["step"] for one in calls(tmp_path / "ray")] == [5, 10]
    with pytest.raises(RunFailed, match=r"failed at step 5: KeyError: 'pictures'"):
        train(Watched(fails_at=5), tmp_path / "fails", num_workers=2)
