"""Transfer learning: a classifier of torchvision or timm, initialised from pretrained weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from blitz.errors import require
from blitz.models.head import head_of
from blitz.models.vision import published_weights
from blitz.optim import Group, Optim
from blitz.recipe import Pretrained
from blitz.recipes.image_csv import ImageCsv


@dataclass(frozen=True)
class Finetune(ImageCsv):
    """Fine-tune a classifier of torchvision or timm on class folders or a CSV, all of it or a new head alone."""

    optim: Optim = Optim(name="momentum", lr=0.01, schedule="cosine")
    weights: str | None = "DEFAULT"
    """Initialise from the published weights of this name for the model, such as torchvision's IMAGENET1K_V1 or timm's
    a1_in1k; None draws new ones. The weights of another run or of a file, where given, take precedence."""
    freeze: Literal["none", "backbone"] = "none"
    """backbone trains the new head alone, and freezes everything before it with its batch statistics."""
    backbone_lr_factor: float = 0.1
    """A factor on --optim.lr for everything before the head."""
    unfreeze_after_epochs: float | None = None
    """With --freeze backbone: train it too after so many epochs, such as 1.5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        factor, epochs = self.backbone_lr_factor, self.unfreeze_after_epochs
        require(factor > 0, f"--backbone-lr-factor is {factor}; it must be above 0, or add --freeze backbone")
        require(epochs is None or epochs > 0, f"--unfreeze-after-epochs is {epochs}; it must be above 0")
        frozen = self.freeze == "backbone"
        require(epochs is None or frozen, "--unfreeze-after-epochs goes with --freeze backbone; nothing else is frozen")

    @property
    def uses_other_weights(self) -> bool:
        return self.init_from is not None or self.weights is not None

    def pretrained(self) -> Pretrained | None:
        return None if self.weights is None else Pretrained(*published_weights(self.model.name, self.weights))

    def parameter_groups(self, model: nn.Module, steps_per_epoch: int) -> Sequence[Group]:
        names = head_of(model)
        head = [parameter for name, parameter in model.named_parameters() if name in names]
        backbone = [parameter for name, parameter in model.named_parameters() if name not in names]
        from_step: int | None = 0
        if self.freeze == "backbone":
            epochs = self.unfreeze_after_epochs
            from_step = None if epochs is None else round(epochs * steps_per_epoch)
        return [
            Group("head", head),
            Group("backbone", backbone, lr_factor=self.backbone_lr_factor, from_step=from_step),
        ]
