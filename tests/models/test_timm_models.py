"""Models of timm by name: their own size and normalisation, trained, resumed, exported, and initialised from a file."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from blitz.data.csv.image_source import ImageCsvData
from blitz.errors import UserError
from blitz.export.checked_export import export
from blitz.models.head import head_of
from blitz.models.vision import published_weights, vision_model
from blitz.optim import Optim
from blitz.recipes.finetune import Finetune
from blitz.recipes.image_csv import VisionModel
from tests.pictures import coloured
from tests.running import losses, same_bits, train, weights
from tests.training.test_loop import killed_after

timm = pytest.importorskip("timm")

NAME = "timm:test_vit"


@pytest.fixture
def recipe(tmp_path: Path) -> Finetune:
    csv = coloured(tmp_path / "images", 16)
    data = ImageCsvData(train_csv=str(csv), loader_workers=0, cache=str(tmp_path / "cache"))
    return Finetune(
        weights=None,
        epochs=2,
        global_batch_size=8,
        log_every_steps=1,
        data=data,
        model=VisionModel(NAME),
        optim=Optim("momentum", 0.01),
    )


def test_it_is_timms_with_its_size_and_normalisation(recipe: Finetune) -> None:
    fitted = recipe.fitted()
    config = timm.get_pretrained_cfg("test_vit")
    assert fitted.data.size == config.input_size[-1] == 160
    pixels = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    mean, std = (torch.tensor(each)[:, None, None] for each in (config.mean, config.std))
    torch.testing.assert_close(fitted.preprocess({"inputs": pixels})["inputs"], (pixels / 255 - mean) / std)
    own, theirs = (
        vision_model(NAME, outputs=3, size=96),
        timm.create_model("test_vit", num_classes=3, img_size=96),
    )
    assert {n: one.shape for n, one in own.state_dict().items()} == {
        n: one.shape for n, one in theirs.state_dict().items()
    }
    assert head_of(own) == ["head.weight", "head.bias"]


def test_it_starts_from_a_file_resumes_to_the_same_bits_and_is_exported(recipe: Finetune, tmp_path: Path) -> None:
    torch.manual_seed(7)
    source = timm.create_model("test_vit", num_classes=1000)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "model.safetensors")
    frozen = replace(recipe, init_from=str(tmp_path / "model.safetensors"), freeze="backbone")
    killed_after(frozen, tmp_path / "parts", 3)
    parts, whole = train(frozen, tmp_path / "parts"), train(frozen, tmp_path / "whole")
    assert same_bits(weights(parts), weights(whole))
    assert losses(parts) == losses(whole)
    taken = {name: one for name, one in weights(whole).items() if not name.startswith("head.")}
    assert taken
    assert all(torch.equal(one, source.state_dict()[name]) for name, one in taken.items())
    made = export(frozen.fitted(), whole, whole.checkpoint_step("last"), "torch_export", quantize=False, tolerance=1e-4)
    assert made.difference is not None
    assert made.difference < 1e-4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("timm:test_wit", r"timm has no model 'test_wit'; it has timm:test_vit, "),
        ("timm:test_vit.nosuch", r"timm has no weights 'nosuch' of test_vit; it has r160_in1k"),
    ],
)
def test_a_name_that_timm_does_not_have_is_refused(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        vision_model(name, outputs=2, size=160)


def test_weights_that_cannot_be_downloaded_are_asked_for_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"timm's test_vit cannot be downloaded \(.*\); fetch its model.safetensors"):
        published_weights(NAME, "DEFAULT")
