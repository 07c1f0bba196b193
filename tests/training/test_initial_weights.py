"""Initial weights from another run or a file, as far as they fit; and files that bring code."""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import safetensors.torch
import torch
from torch import nn

from blitz.api.train_run import TrainSettings
from blitz.cli.train import train as train_job
from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Datasets, Split
from blitz.errors import DataError, UserError
from blitz.launch.local.in_process import run_in_process
from blitz.launch.scale import Scale
from blitz.launch.tune.trials import train_trial
from blitz.models.weights_file import read_weights
from blitz.optim import Optim
from blitz.outputs.metrics import Classification
from blitz.recipes import recipe_to_json
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from blitz.training.initial_weights import FILE, load_initial, resolve_initial_weights
from blitz.training.trial import TrialJob
from tests.running import same_bits, train, weights
from tests.training.test_loop import killed_after

SMALL = Digits(max_train_rows=64, max_eval_rows=32, optim=Optim(lr=0.003), epochs=3)
"""Two steps an epoch."""


@dataclass(frozen=True)
class OddDigits(Digits):
    """Only whether a digit is odd."""

    def dataset(self, split: Split) -> ArrayDataset:
        columns = super().dataset(split).columns
        return ArrayDataset(inputs=columns["inputs"], targets=columns["targets"] % 2)

    def build_model(self) -> nn.Module:
        model = super().build_model()
        model.classifier = nn.Linear(128, 2)
        return model

    def metrics(self) -> Classification:
        return Classification(classes=("even", "odd"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = train(SMALL, tmp_path_factory.mktemp("source"))
    run.write_json("recipe.json", recipe_to_json(SMALL))
    return run


def only(recipe: Digits, run: RunDirectory, **fields: Any) -> Digits:
    """A recipe initialised from a run, which takes one step that is too small to see."""
    return replace(recipe, init_from=run.uri, max_steps=1, optim=Optim(lr=1e-30), **fields)


def test_a_run_of_the_same_classes_is_taken_over_whole_from_its_best_checkpoint_or_another(
    source: RunDirectory, tmp_path: Path
) -> None:
    checkpoints: list[Literal["best", "last"] | int] = ["best", "last", 4]
    for which in checkpoints:
        taken = train(only(SMALL, source, init_checkpoint=which), tmp_path / str(which))
        assert same_bits(weights(taken), weights(source, source.checkpoint_step(which)))


def test_for_other_classes_the_head_is_new_and_each_tensor_that_does_not_fit_is_named(
    source: RunDirectory, tmp_path: Path
) -> None:
    recipe, initial = resolve_initial_weights(only(OddDigits(), source))
    assert initial is not None
    assert [*initial.lines()] == [
        f"initialised from {source}, step {source.checkpoint_step('best')}: 4 of 6 tensors fit",
        "  taken: features (4)",
        "  new: classifier.weight, classifier.bias: the head, which is for other classes",
    ]
    run = train(recipe, tmp_path)
    given = weights(source, source.checkpoint_step("best"))
    assert all(torch.equal(value, given[name]) for name, value in weights(run).items() if name.startswith("features"))


def test_reasons_are_the_shape_and_what_is_not_there(source: RunDirectory, tmp_path: Path) -> None:
    tensors = weights(source)
    given = {**tensors, "features.0.weight": torch.zeros(3), "extra": torch.zeros(1)}
    del given["features.3.bias"]
    safetensors.torch.save_file(given, tmp_path / "some.safetensors")

    @dataclass(frozen=True)
    class Unjudged(Digits):
        def metrics(self) -> Any:
            return super(Digits, self).metrics()

    _, initial = resolve_initial_weights(Unjudged(init_from=str(tmp_path / "some.safetensors")))
    assert initial is not None
    assert [*initial.lines()][1:] == [
        "  taken: features (2), classifier (2)",
        "  new: features.0.weight: of shape (16, 1, 3, 3) here and (3,) there",
        "  new: features.3.bias: the source has no such tensor",
        "  not used: extra: the model has no such tensor",
    ]
    safetensors.torch.save_file({"other": torch.zeros(1)}, tmp_path / "none.safetensors")
    with pytest.raises(
        UserError, match=r"no weight of .*none.safetensors fits .* it has other, and the model features"
    ):
        resolve_initial_weights(Unjudged(init_from=str(tmp_path / "none.safetensors")))


def test_weights_that_share_memory_are_kept_like_any_other(source: RunDirectory, tmp_path: Path) -> None:
    tensors = weights(source)
    small, large = "features.0.bias", "features.3.bias"
    given = {**tensors, small: tensors[large][: len(tensors[small])]}
    torch.save(given, tmp_path / "w.pth")
    _, initial = resolve_initial_weights(replace(SMALL, init_from=str(tmp_path / "w.pth")))
    assert initial is not None
    run = RunDirectory.of(str(tmp_path), "run")
    initial.write(run)
    kept = safetensors.torch.load(run.read(FILE))
    assert kept.keys() == initial.taken.keys() >= {small, large}
    assert same_bits(kept, {name: given[name] for name in kept})


def test_a_run_that_resumes_has_its_own_weights_and_detects_a_source_that_has_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = train(SMALL, tmp_path / "source")
    source.write_json("recipe.json", recipe_to_json(SMALL))
    recipe = replace(SMALL, epochs=4, init_from=source.uri)
    whole = train(recipe, tmp_path / "whole")
    killed_after(recipe, tmp_path / "parts", 3)
    assert same_bits(weights(train(recipe, tmp_path / "parts")), weights(whole))

    settings = TrainSettings(replace(recipe, epochs=1), storage=str(tmp_path), run="named")
    train_job(settings)
    assert "initialised from" in capsys.readouterr().out
    stored = RunDirectory.of(str(tmp_path), "named").read_json("recipe.json")
    assert stored is not None
    begun = stored["begins_with"]
    assert (begun["source"], begun["step"]) == (source.uri, source.checkpoint_step("best"))
    train_job(replace(settings, recipe=recipe))
    printed = capsys.readouterr().out
    assert "continues from step 2" in printed
    assert "initialised from" not in printed

    best = Checkpoint.load(source, source.checkpoint_step("best"))
    replace(best, weights={**best.weights, "classifier.bias": best.weights["classifier.bias"] + 1}).save(source)
    with pytest.raises(UserError, match=r"named was made with other settings: begins_with.sha256 \(was "):
        train_job(replace(settings, recipe=replace(recipe, epochs=5)))
    with pytest.raises(UserError, match=r"begins_with.*was"):
        train_job(replace(settings, recipe=replace(recipe, init_from=None)))


class Malicious:
    """Unpickled, it creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.file), "w")


@pytest.mark.parametrize("how", ["torch.save", "beside weights", "plain pickle"])
def test_a_file_that_brings_code_is_refused_in_one_line_and_does_nothing(how: str, tmp_path: Path) -> None:
    created, file = tmp_path / "created", tmp_path / "weights.pth"
    content = Malicious(created)
    if how == "plain pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        given = {"fc.weight": torch.zeros(2, 2), "loss": content}
        torch.save(given if how == "beside weights" else content, file)
    with pytest.raises(DataError, match="would run code") as refused:
        resolve_initial_weights(replace(SMALL, init_from=str(file)))
    assert "\n" not in str(refused.value)
    assert not created.exists()
    # It is what it says it is.
    if how == "plain pickle":
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert created.exists()


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("w.pth", saved(TENSORS)),
        ("w.pt", saved({"epoch": 3, "state_dict": TENSORS})),
        ("w.pt", saved({"model": {f"module.{name}": one for name, one in TENSORS.items()}})),
        ("w.safetensors", safetensors.torch.save(TENSORS)),
    ],
    ids=["state dict", "checkpoint", "of DistributedDataParallel", "safetensors"],
)
def test_weights_are_read_as_people_store_them(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert same_bits(read_weights(str(tmp_path / name)), TENSORS)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("w.pth", saved(TENSORS)[:100], "is not a file of weights, or is cut off"),
        ("w.safetensors", b"abc", "is not a file of weights, or is cut off"),
        ("w.pth", b"", "is not a file of weights, or is cut off"),
        ("w.pth", saved([1, 2]), "holds no state dict"),
        ("w.pth", saved({"a": 1}), "holds no state dict"),
        ("w.pth", None, "cannot be read"),
    ],
)
def test_files_that_are_no_weights_are_refused_in_one_line(
    name: str, data: bytes | None, says: str, tmp_path: Path
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=says) as error:
        read_weights(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_the_trials_of_a_sweep_are_initialised_from_them_too(source: RunDirectory, tmp_path: Path) -> None:
    recipe, run = only(SMALL, source), RunDirectory.of(str(tmp_path))
    run.probe()
    datasets: Datasets = {"train": recipe.dataset("train"), "val": recipe.dataset("val")}

    def launch(job: TrialJob) -> None:
        run_in_process(job, datasets, Scale(num_workers=0))

    assert train_trial(recipe, datasets, run, launch, should_continue=lambda *_: True)
    assert same_bits(weights(run), weights(source, source.checkpoint_step("best")))


def test_a_run_with_other_initial_weights_is_not_started_without_them(source: RunDirectory, tmp_path: Path) -> None:
    recipe = only(SMALL, source)
    with pytest.raises(UserError, match=r"only blitz train can initialise from other weights"):
        load_initial(recipe, recipe.build_model(), RunDirectory.of(str(tmp_path)))


@pytest.mark.parametrize(
    "name",
    [".", "..", "/", "", "folder", "text.txt", "empty", "text.txt/below", "nosuch", "/dev/null", "a\0b", "s3://"],
)
def test_what_is_neither_a_run_nor_a_file_of_weights_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "text.txt").write_text("not weights\nat all\n")
    with pytest.raises(UserError, match=r"is neither a run nor a file of weights \(\.safetensors, \.pth, ") as refused:
        resolve_initial_weights(Digits(init_from=name))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["empty.pth", "empty.safetensors", "text.pt", "folder.pt", "nosuch.PTH", "empty.BIN"])
def test_a_file_that_is_none_of_weights_but_for_its_name_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    kind, path = name.partition(".")[0], tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind != "nosuch":
        path.write_text("" if kind == "empty" else "not weights\nat all\n")
    with pytest.raises(DataError) as refused:
        resolve_initial_weights(Digits(init_from=str(path)))
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)
