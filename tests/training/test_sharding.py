"""`--scale.shard full`: a model that is divided over processes is trained and stored like one that is not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from blitz.api.run import Run
from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Plan, Split
from blitz.errors import UserError
from blitz.optim import Group, Optim, Swa
from blitz.outputs.metrics import Classification
from blitz.recipe import Batch, Recipe, may_change
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from blitz.training.evaluation import EvaluateJob
from blitz.training.loop import Checkpoints, TrainJob
from blitz.training.prepared import prepare
from blitz.training.sharding import Part, repeated_blocks, require_shardable
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, result, same_bits, train, weights
from tests.two_processes import on_ranks, run_on_two


class Block(nn.Module):
    """A residual block of a width that two and three ranks do not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(7), nn.Linear(7, 7)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs + self.layer(self.norm(inputs)).relu()
        return outputs


class Net(nn.Module):
    """A first layer, two blocks and a head, beside a frozen table."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 7)
        self.blocks: Any = nn.ModuleList(Block() for _ in range(2))
        self.head, self.scale = nn.Linear(7, 3), nn.Parameter(torch.ones(1))
        self.register_buffer("shift", torch.randn(7))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs) + self.shift
        for block in self.blocks:
            hidden = block(hidden)
        outputs: Tensor = self.head(hidden) * self.scale
        return outputs


@dataclass(frozen=True)
class Deep(Recipe):
    """Batches of 8 and of 5 rows, which three ranks do not divide."""

    epochs: int = may_change(2)
    global_batch_size: int = 8
    log_every_steps: int = may_change(1)
    optim: Optim = Optim(name="momentum", lr=0.1, weight_decay=0.01, grad_clip_norm=0.5)
    first_from_step: int | None = 0

    def dataset(self, split: Split) -> ArrayDataset:
        inputs = np.random.default_rng(0).normal(size=(13, 4)).astype(np.float32)
        return ArrayDataset(inputs=inputs, targets=(inputs[:, :3].argmax(1)).astype(np.int64))

    def build_model(self) -> nn.Module:
        return Net()

    def parameter_groups(self, model: nn.Module, steps_per_epoch: int) -> Sequence[Group]:
        assert isinstance(model, Net)
        first = [*model.first.parameters()]
        others = [one for name, one in model.named_parameters() if not name.startswith("first.")]
        return [Group("first", first, lr_factor=0.5, from_step=self.first_from_step), Group("others", others)]

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch["targets"], reduction="none")

    def metrics(self) -> Classification:
        return Classification(classes=("a", "b", "c"))


PLAIN = in_float64(Deep())
RECIPES = {
    "momentum": replace(PLAIN, micro_batch_size=1, on_nan="skip", swa=Swa(from_epoch=1)),
    "adamw": replace(
        PLAIN, recompute=True, optim=Optim(name="adamw", lr=0.01, schedule="cosine"), ema=0.9, first_from_step=1
    ),
    "frozen": replace(PLAIN, max_steps=1, first_from_step=None),
}


def job_of(recipe: Recipe, folder: Path) -> TrainJob:
    prepared, run = prepare(recipe), RunDirectory.of(str(folder))
    prepared.begin(run)
    return TrainJob(prepared.recipe, prepared.plan, run, Checkpoints(keep=9))


def assert_same(one: RunDirectory, other: RunDirectory) -> None:
    """Rows to the bit; losses, metrics and weights to rounding in float64."""
    assert result(one)["rows_digest"] == result(other)["rows_digest"]
    assert losses(one) == pytest.approx(losses(other), rel=TOLERANCE)
    assert result(one)["metrics"] == pytest.approx(result(other)["metrics"], rel=TOLERANCE)
    found, expected = weights(one), weights(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=TOLERANCE, atol=TOLERANCE)


def average_of_gradients(rank: int) -> None:
    layer = nn.Linear(1, 1, bias=False)
    fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
    layer(torch.full((1, 1), rank + 1.0)).sum().backward()
    gradient = layer.weight.grad
    assert isinstance(gradient, DTensor)
    assert gradient.full_tensor().item() == 1.5


def test_torch_averages_the_gradients_of_a_sharded_model_on_cpus(tmp_path: Path) -> None:
    # As DistributedDataParallel does: the weights of rows rely on it.
    on_ranks(average_of_gradients, tmp_path, ranks=2)


def test_sharded_runs_take_the_rows_and_the_steps_of_one_process_which_uses_them(tmp_path: Path) -> None:
    jobs = {name: job_of(recipe, tmp_path / "sharded" / name) for name, recipe in RECIPES.items()}
    first = jobs["momentum"]
    evaluation = EvaluateJob(first.recipe, Plan.of_evaluation(rows=13, batch_size=8), first.run, "val", 4)
    run_on_two([*jobs.values(), evaluation], tmp_path / "sharded", ranks=3, sharded=True)
    for name, recipe in RECIPES.items():
        assert_same(jobs[name].run, train(recipe, tmp_path / "alone" / name))

    run = Run(first.run, first.recipe)
    stored = first.run.read_json(evaluation.result_file)
    assert stored is not None
    found = run.evaluate(checkpoint="last")
    assert stored["figures"] == pytest.approx(found, rel=TOLERANCE)
    assert found["loss"] == pytest.approx(run.last_metrics["val/loss"], rel=TOLERANCE)
    assert same_bits(run.model("last").state_dict(), weights(first.run))
    initial = prepare(replace(PLAIN, init_from=first.run.uri, init_checkpoint=4)).initial
    assert initial is not None
    assert same_bits(initial.taken, weights(first.run))


def save_where_one_storage_fails(folder: Path, rank: int) -> None:
    (folder / "a file").touch()
    run = RunDirectory.of(str(folder / ("run" if rank == 0 else "a file")))
    own = {"weight": torch.full((1,), rank)}
    with pytest.raises(OSError, match="a file"):
        Checkpoint(1, own, own, {}).save(run, Part.of_this_rank())


def test_a_checkpoint_is_absent_if_one_process_cannot_write_its_part(tmp_path: Path) -> None:
    on_ranks(partial(save_where_one_storage_fails, tmp_path), tmp_path, ranks=2)
    assert (tmp_path / "run" / "checkpoints" / "1" / "weights-00001-of-00002.safetensors").exists()
    assert RunDirectory.of(str(tmp_path / "run")).checkpoint_steps() == []


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_ray_shards_too(tmp_path: Path) -> None:
    sharded = train(PLAIN, tmp_path / "sharded", num_workers=2, shard="full")
    assert len([name for name in sharded.names("checkpoints/4") if name.startswith("weights")]) == 2
    assert_same(sharded, train(PLAIN, tmp_path / "alone"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"compile": True}, "does not go with --compile"),
        ({"channels_last": True}, "does not go with --channels-last"),
        ({"optim": Optim(custom="torch.optim:Adamax")}, "does not go with --optim.custom"),
    ],
)
def test_what_cannot_be_sharded_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        require_shardable(replace(PLAIN, **change), Net())


def test_a_parameter_without_rows_cannot_be_sharded() -> None:
    net = Net()
    net.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(UserError, match=r"parameter scale is one number; give it the shape \(1,\)"):
        require_shardable(PLAIN, net)


def test_a_run_resumes_sharded_over_any_number_of_processes_or_not(tmp_path: Path) -> None:
    run = RunDirectory.of(str(tmp_path / "run"))
    for end, (ranks, sharded) in enumerate([(3, True), (1, False), (2, True), (2, False)], start=1):
        job = job_of(replace(PLAIN, max_steps=end), tmp_path / "run")
        run_on_two([job], tmp_path / f"to-{end}", ranks=ranks, sharded=sharded)
        names = [name for name in run.names(f"checkpoints/{end}") if name.startswith("weights")]
        assert len(names) == (ranks if sharded else 1)
    assert_same(run, train(PLAIN, tmp_path / "alone"))


def test_activations_that_are_computed_again_change_nothing(tmp_path: Path) -> None:
    plain, again = (train(replace(PLAIN, recompute=value), tmp_path / str(value)) for value in (False, True))
    assert losses(again) == losses(plain)
    assert same_bits(weights(again), weights(plain))


def test_blocks_are_found_by_their_type() -> None:
    net = Net()
    assert repeated_blocks(net) == [*net.blocks]
    net.head.weight = net.blocks[1].layer.weight
    assert repeated_blocks(net) == [net.blocks[0]]
    with torch.device("meta"):
        vit, resnet = torchvision.models.vit_b_16(), torchvision.models.resnet18()
    assert repeated_blocks(vit) == [*vit.encoder.layers]
    assert [type(one).__name__ for one in repeated_blocks(resnet)] == ["BasicBlock"] * 8
