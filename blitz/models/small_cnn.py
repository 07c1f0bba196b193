"""A convolutional net of two blocks, for small grey images."""

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Two blocks of convolution, ReLU and 2 × 2 pooling, then one linear layer.

    (batch, 1, side, side) → (batch, classes), where `side` is a multiple of 4.
    """

    def __init__(self, *, side: int, widths: tuple[int, int], kernel_size: int, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, widths[0], kernel_size, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(widths[0], widths[1], kernel_size, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Linear(widths[1] * (side // 4) ** 2, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of shape (batch, classes)."""
        scores: Tensor = self.classifier(self.features(images).flatten(1))
        return scores
