"""Which checkpoint is the best, and when a run stops early: alone, resumed, on two workers and as a lane of a pack."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import blitz
from blitz.api.train_run import TrainSettings
from blitz.cli.train import train as train_and_print
from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Plan, Split
from blitz.errors import UserError
from blitz.launch.scale import Scale
from blitz.launch.tune.space import Space
from blitz.launch.tune.trial_data import TrialData
from blitz.outputs.best import Best, Deciding
from blitz.outputs.metrics import Classification, Loss, Metrics
from blitz.recipe import Batch, Recipe, may_change
from blitz.report.page import run_page
from blitz.report.record import read_record
from blitz.run_files.directory import RunDirectory
from blitz.run_files.sweep_directory import Goal
from blitz.training.checkpoint import Checkpoint
from blitz.training.loop import Checkpoints
from blitz.training.progress import Progress
from tests.running import result, same_bits, train, weights
from tests.training.packed.packs import train_packed

LOWER, HIGHER = Deciding("loss", False), Deciding("score", True)
PLAN = Plan(train_rows=8, eval_rows=8, global_batch_size=8, total_steps=9, evaluate_every_steps=1, seed=0)


def followed(values: list[tuple[float, float]], deciding: Deciding = HIGHER, min_delta: float = 0.0) -> Progress:
    """The progress after evaluations of these scores and losses."""
    progress = Progress()
    for score, loss in values:
        progress.step += 1
        progress.evaluated({"loss": loss, "score": score}, deciding, min_delta=min_delta)
    return progress


def best_step(progress: Progress) -> int:
    assert progress.best is not None
    return progress.best.step


def test_among_equals_the_lower_loss_is_the_best_and_then_the_earlier() -> None:
    assert best_step(followed([(0.5, 1.0), (0.9, 0.7), (0.9, 0.6), (0.9, 0.6), (0.9, 0.8)])) == 3
    assert best_step(followed([(math.nan, 2.0), (0.1, 1.0), (math.nan, 0.1)])) == 2
    assert best_step(followed([(0.0, 3.0), (0.0, 1.0), (0.0, 2.0)], LOWER)) == 2


def test_only_a_change_above_the_least_counts_against_patience() -> None:
    slowly = [(0.50, 1.0), (0.51, 0.9), (0.52, 0.8), (0.56, 0.7)]
    assert [followed(slowly[:n], min_delta=0.05).waited for n in (1, 2, 3, 4)] == [0, 1, 2, 0]
    assert followed(slowly).waited == 0
    # At the same score a lower loss is an improvement.
    assert [followed([(0.5, 1.0), (0.5, 0.9), (0.5, 0.9)][:n]).waited for n in (2, 3)] == [0, 1]
    assert followed([(math.nan, 1.0)] * 3).waited == 3
    assert followed([(0.5, 1.0), (0.4, 1.0), (0.3, 1.0)]).is_out_of_patience(2, PLAN)


@dataclass(frozen=True)
class Overfitting(Recipe):
    """One weight that the training rows pull past the value that is the best on the validation rows, 1 a step.

    The validation loss is (weight - 4)²: evaluated after each step, the best is step 4.
    """

    epochs: int = may_change(12)
    global_batch_size: int = 8
    log_every_steps: int = may_change(1)
    optim: blitz.Optim = blitz.Optim(name="sgd", lr=1.0)

    def dataset(self, split: Split) -> ArrayDataset:
        return ArrayDataset(inputs=np.full((8, 1), split == "val", np.float32))

    def build_model(self) -> nn.Module:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        weight: Tensor = model(torch.ones_like(batch["inputs"]))
        return weight

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        validates = batch["inputs"].squeeze(1) > 0
        return torch.where(validates, (outputs.squeeze(1) - 4).square(), -outputs.squeeze(1))

    def metrics(self) -> Metrics:
        return Loss()


PATIENT = Overfitting(patience=3)
STOPPED = {"steps": 7, "best_checkpoint": 4, "stopped_before": 12, "patience": 3}


def outcome(run: RunDirectory) -> dict[str, Any]:
    found = result(run)
    assert (found["metrics"], found["last_metrics"]) == ({"val/loss": 0.0}, {"val/loss": 9.0})
    return {name: found[name] for name in STOPPED}


def test_a_run_stops_once_it_is_out_of_patience_and_names_its_best_and_last_metrics(tmp_path: Path) -> None:
    run = train(PATIENT, tmp_path)
    assert outcome(run) == STOPPED
    assert run.checkpoint_step("best") == 4


def test_the_summary_gives_the_best_metrics_with_the_last_ones_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_and_print(TrainSettings(PATIENT, storage=str(tmp_path), run="one", report=False, scale=Scale(num_workers=0)))
    lines = capsys.readouterr().out.splitlines()
    first = lines.index("                         best, step 4      last, step 7")
    assert lines[first + 1].split() == ["val/loss", "0.0000", "9.0000"]
    assert "no improvement of val/loss in 3 evaluations ended it at step 7 of 12" in lines


def test_the_report_marks_the_best_step_on_the_curve(tmp_path: Path) -> None:
    page = run_page(read_record(train(PATIENT, tmp_path / "one")))
    layers = page.charts["curve loss"]["layer"]
    (marks,) = [one["data"]["values"] for one in layers if one["mark"].get("shape") == "diamond"]
    assert marks == [{"run": "one", "series": "validation", "step": 4, "value": 0.0}]
    assert page.context["tiles"][0] == ("0", "val/loss", "best, at step 4; last 9")
    assert "best</text>" in page.svgs()["curve loss"]


@pytest.mark.parametrize("killed_at", [4, 5, 6, 7])
def test_a_run_that_was_killed_stops_at_the_step_of_one_that_never_was(tmp_path: Path, killed_at: int) -> None:
    whole = train(PATIENT, tmp_path / "whole")
    run = train(PATIENT, tmp_path / "parts", checkpoints=Checkpoints(keep=12))
    for step in range(killed_at + 1, 8):
        run.delete_checkpoint(step)
    (tmp_path / "parts" / "result.json").unlink()
    assert outcome(train(PATIENT, tmp_path / "parts")) == STOPPED
    assert same_bits(weights(run), weights(whole))


def test_the_same_call_finds_it_finished_and_more_patience_continues_it(tmp_path: Path) -> None:
    here: dict[str, Any] = {"storage": tmp_path, "run": "one", "report": False, "num_workers": 0}
    run = blitz.train(Overfitting(), patience=3, **here)
    before = (tmp_path / "one" / "events.jsonl").read_text()
    assert blitz.train(Overfitting(), patience=3, **here).metrics == {"val/loss": 0.0}
    assert blitz.train(Overfitting(), patience=2, **here).last_metrics == {"val/loss": 9.0}
    # More epochs alone do not: it would have stopped there too.
    longer = blitz.train(replace(Overfitting(), epochs=20), patience=3, **here).result
    assert longer is not None
    assert (longer["steps"], longer["stopped_before"]) == (7, 20)
    assert (tmp_path / "one" / "events.jsonl").read_text().startswith(before)
    longer = blitz.train(replace(Overfitting(), epochs=20), patience=5, **here).result
    assert longer is not None
    assert (longer["steps"], longer["best_checkpoint"], longer["patience"]) == (9, 4, 5)
    assert run.metrics == {"val/loss": 0.0}


def test_patience_needs_rows_to_evaluate_on() -> None:
    with pytest.raises(UserError, match=r"--patience: recipe .* has no rows to evaluate on"):
        PATIENT.plan(8, 0)


def test_each_lane_of_a_pack_stops_where_its_solo_run_does(tmp_path: Path) -> None:
    recipes = [replace(PATIENT, optim=blitz.Optim(name="sgd", lr=lr)) for lr in (1.0, 0.5, 4.0)]
    heard = train_packed(recipes)
    for lane, recipe in enumerate(recipes):
        run, end = train(recipe, tmp_path / str(lane)), heard.ends[lane]
        assert end.last is not None
        assert end.best is not None
        solo = [Checkpoint.load(run, run.checkpoint_step(which)) for which in ("last", "best")]
        assert end.state == "finished"
        for packed, alone in zip((end.last, end.best), solo, strict=True):
            timed: dict[str, Any] = {"seconds": {}}
            assert {**{name: alone.state[name] for name in packed.state}, **timed} == {**packed.state, **timed}
            assert same_bits(packed.weights, alone.weights)
    assert [heard.ends[lane].step for lane in range(3)] == [7, 11, 4]


@pytest.mark.cluster
def test_two_workers_stop_at_the_same_step(tmp_path: Path, ray_runtime: None) -> None:
    assert outcome(train(PATIENT, tmp_path, num_workers=2)) == STOPPED


@dataclass(frozen=True)
class Rare(Overfitting):
    """The sign of the inputs, of which 2 % are positive."""

    epochs: int = may_change(6)

    def dataset(self, split: Split) -> ArrayDataset:
        inputs = np.where(np.arange(100) < 2, 1, -1).astype(np.float32)[:, None]
        return ArrayDataset(inputs=inputs, targets=(inputs[:, 0] > 0).astype(np.int64))

    def build_model(self) -> nn.Module:
        return nn.Linear(1, 2)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        outputs: Tensor = model(batch["inputs"])
        return outputs

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(outputs, batch["targets"], reduction="none")

    def metrics(self) -> Classification:
        return Classification(classes=("no", "yes"))


@pytest.mark.parametrize(
    ("settings", "metric"),
    [({}, "f1_macro"), ({"best": Best("accuracy")}, "accuracy"), ({"best": Best("loss")}, "loss")],
)
def test_a_rare_class_or_a_flag_changes_what_decides(
    tmp_path: Path, settings: dict[str, Any], metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(Rare(**settings), tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if "98.0% of the rows are 'no'" in line]
    assert len(said) == (metric == "f1_macro")
    assert result(run)["best_metric"] == f"val/{metric}"
    lines = [line for line in run.metrics() if "val/loss" in line]
    sign = 1 if metric == "loss" else -1
    best = min(lines, key=lambda line: (sign * line[f"val/{metric}"], line["val/loss"], line["step"]))
    assert result(run)["best_checkpoint"] == best["step"]
    assert result(run)["metrics"]["val/loss"] == best["val/loss"]


def test_a_sweep_ranks_trials_by_what_decides_in_a_run() -> None:
    space = Space(recipe=Rare, parameters={"optim.lr": 0.1})

    def goal(recipe: Recipe, space: Space = space) -> Goal:
        return space.goal(recipe, TrialData(recipe).class_counts())

    assert goal(Rare()) == Goal("val/f1_macro", "max")
    assert goal(Rare(best=Best("loss"))) == Goal("val/loss", "min")
    named = replace(space, metric="val/accuracy", mode="max")
    assert goal(Rare(), named) == Goal("val/accuracy", "max")
    assert goal(Rare(best=Best("loss")), named) == Goal("val/loss", "min")
