"""MNIST with a CNN of two blocks: one epoch, its test accuracy shown on the way."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.data.torchvision_images import VisionData, mnist
from blitz.models.small_cnn import SmallCNN
from blitz.optim import Optim
from blitz.outputs.metrics import Classification
from blitz.recipe import Batch, Recipe, may_change


@dataclass(frozen=True)
class Mnist(Recipe):
    """A CNN of 16 and 32 channels on MNIST: batch 50, Adam, one epoch; `val` is the official test set."""

    global_batch_size: int = 50
    evaluate_every_steps: int | None = 300
    optim: Optim = Optim(name="adam", lr=0.001)
    data: VisionData = may_change(VisionData())

    def dataset(self, split: Split) -> ArrayDataset:
        return mnist(self.data, split)

    def build_model(self) -> nn.Module:
        return SmallCNN(side=28, widths=(16, 32), kernel_size=5)

    def preprocess(self, batch: Batch) -> Batch:
        return {**batch, "inputs": batch["inputs"].float() / 255}

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch["targets"], reduction="none")

    def metrics(self) -> Classification:
        return Classification(classes=tuple("0123456789"))
