"""LeNet on MNIST: images of 32 × 32 in grey, as it was made for."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split
from blitz.data.torchvision_images import VisionData, mnist
from blitz.models.lenet5 import LeNet
from blitz.optim import Optim
from blitz.outputs.metrics import Classification
from blitz.recipe import Batch, Recipe, may_change


@dataclass(frozen=True)
class LeNetOnMnist(Recipe):
    """The LeNet of the blitz on MNIST, padded to 1 × 32 × 32: two epochs; `val` is the official test set."""

    epochs: int = 2
    global_batch_size: int = 50
    log_every_steps: int = 300
    optim: Optim = Optim(name="momentum", lr=0.02, schedule="cosine")
    data: VisionData = may_change(VisionData())

    def dataset(self, split: Split) -> ArrayDataset:
        return mnist(self.data, split)

    def build_model(self) -> nn.Module:
        return LeNet(channels=1, classes=10)

    def preprocess(self, batch: Batch) -> Batch:
        return {**batch, "inputs": F.pad(batch["inputs"].float() / 255, (2, 2, 2, 2))}

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch["targets"], reduction="none")

    def metrics(self) -> Classification:
        return Classification(classes=tuple("0123456789"))
