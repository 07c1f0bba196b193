"""As Lightning's quick start has it: a LightningModule, a Trainer, two loaders, and the accuracy written by hand."""

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench.quick_starts.problem import TRAIN, VAL, Net


class LitNet(L.LightningModule):  # type: ignore[misc]
    """The model, its loss, its metric and its optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = Net(), nn.CrossEntropyLoss()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        loss: Tensor = self.loss(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy of a batch."""
        x, y = batch
        outputs = self.net(x)
        self.log("val_loss", self.loss(outputs, y))
        self.log("val_accuracy", (outputs.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters())


trainer = L.Trainer(max_epochs=1)
trainer.fit(LitNet(), DataLoader(TRAIN, batch_size=64, shuffle=True), DataLoader(VAL, batch_size=64))
print(trainer.callback_metrics["val_loss"].item(), trainer.callback_metrics["val_accuracy"].item())
