"""Models of cross-validation, one for each fold, as one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blitz.models.tabm import averaged


class Folds(nn.Module):
    """Models of the same kind, of which model k is not trained on the rows of fold k."""

    def __init__(self, models: Sequence[nn.Module], *, classifies: bool) -> None:
        super().__init__()
        self.models, self.classifies = nn.ModuleList(models), classifies

    def forward(self, *inputs: Tensor, fold: Tensor | None) -> Tensor:
        """In training the outputs of all models, else of the one that was not trained on the row, or their average.

        Args:
            inputs: those of each model, whose outputs are (batch, outputs), or in training (batch, members, outputs).
            fold: the fold of each row, of shape (batch,); None for rows that are in none.

        Returns:
            (batch, models · members, outputs) in training, else (batch, outputs).
        """
        every = self.each(*inputs)
        if self.training:
            return every.reshape(len(every), -1, every.shape[-1])
        if fold is None:
            return averaged(every, classifies=self.classifies)
        return every[torch.arange(len(every), device=every.device), fold]

    def each(self, *inputs: Tensor) -> Tensor:
        """The outputs of all models, (batch, models, …)."""
        return torch.stack([model(*inputs) for model in self.models], 1)


def fold_weights(fold: Tensor, *, folds: int, outputs: int) -> Tensor:
    """What the loss of each of `outputs` in training weighs, of shape (batch, outputs): 0 in the model of the fold.

    `fold` is that of each row, of shape (batch,). The weights of a row are 1 on average.
    """
    models = torch.arange(folds, device=fold.device)
    weights = (fold[:, None] != models).float() * folds / (folds - 1)
    return weights.repeat_interleave(outputs // folds, 1)
