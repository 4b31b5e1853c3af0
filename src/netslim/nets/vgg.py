"""VGG with BatchNorm for small images, as the authors slim it (section 4.1): convolution, BatchNorm, ReLU, repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from netslim.nets.initialisation import initialise

Layers = Sequence[int | Literal["M"]]

LAYERS: dict[int, Layers] = {
    11: [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512],
    13: [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512],
    16: [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512],
    19: [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4],
}


class VGG(nn.Module):
    """Images (N, in_channels, H, W) to logits (N, num_classes).

    Args:
        layers: output channels of each 3×3 convolution, "M" for a 2×2 max-pooling; H and W must be at least 2 to the
            number of poolings.
        num_classes: default 10.
        in_channels: default 3.

    Global average pooling precedes the one linear layer; on 32×32 images with four poolings it is the 2×2 pooling of
    the authors' network.

    >>> import torch
    >>> VGG([8, "M", 16], num_classes=4, in_channels=1)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 4])
    """

    def __init__(self, layers: Layers, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        features: list[nn.Module] = []
        channels = in_channels
        for width in layers:
            if width == "M":
                features.append(nn.MaxPool2d(2))
            else:
                features += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
                channels = width
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as ``nn.Conv2d.reset_parameters`` does those of one layer."""
        initialise(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(images)).flatten(1))


def vgg(depth: int = 19, *, width: float = 1.0, num_classes: int = 10, in_channels: int = 3) -> VGG:
    """VGG-11, 13, 16 or 19 for 32×32 images; ``width`` multiplies the channels of every layer (rounded, at least 1).

    VGG-19 has 5504 BatchNorm channels and 20,035,018 parameters.

    >>> vgg(12)
    Traceback (most recent call last):
    ValueError: no VGG of depth 12; choose 11, 13, 16 or 19
    """
    if depth not in LAYERS:
        raise ValueError(f"no VGG of depth {depth}; choose 11, 13, 16 or 19")
    layers: Layers = [c if c == "M" else max(1, round(c * width)) for c in LAYERS[depth]]
    return VGG(layers, num_classes=num_classes, in_channels=in_channels)
