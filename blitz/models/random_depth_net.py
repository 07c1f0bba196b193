"""A net whose depth is chosen at random in every pass, after PyTorch's "Learning PyTorch with Examples"."""

from torch import Tensor, nn


class DynamicNet(nn.Module):
    """An input layer, a middle layer that is repeated any number of times, and an output layer, with ReLU between.

    (batch, inputs) → (batch, outputs). The repeats share one layer's weights; without any it has no gradient.
    """

    def __init__(self, *, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, numbers: Tensor, repeats: int) -> Tensor:
        """Outputs of shape (batch, outputs)."""
        hidden = self.input(numbers).relu()
        for _ in range(repeats):
            hidden = self.middle(hidden).relu()
        outputs: Tensor = self.output(hidden)
        return outputs
