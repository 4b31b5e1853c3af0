"""DenseNet without bottlenecks (Huang et al. 2017), as the authors slim it: every layer reads all maps before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netslim.nets.initialisation import initialise


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 3×3 convolution to ``growth`` new maps, appended to the (N, C, H, W) that came in."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps, self.conv(F.relu(self.bn(maps), inplace=True))], dim=1)


class Transition(nn.Module):
    """BatchNorm, ReLU, 1×1 convolution that keeps the number of maps, 2×2 average pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(maps), inplace=True)), 2)


class DenseNet(nn.Module):
    """Images (N, in_channels, H, W) to logits (N, num_classes); made for 32×32.

    Args:
        depth: 3n + 4, e.g. 40 (default): n layers in each of three blocks.
        growth: maps that a layer adds, default 12.
        num_classes: default 10.
        in_channels: default 3.

    DenseNet-40 has 9360 BatchNorm channels and 1,059,298 parameters: like the authors' code it starts with 2·growth
    maps (the paper's 1.02 M parameters belong to 16).
    """

    def __init__(self, depth: int = 40, *, growth: int = 12, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 7 or (depth - 4) % 3:
            raise ValueError(f"no DenseNet of depth {depth}; it must be 3n + 4, such as 22, 40 or 100")
        channels = 2 * growth
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for block in range(3):
            if block > 0:
                blocks.append(Transition(channels))
            for _ in range((depth - 4) // 3):
                blocks.append(DenseLayer(channels, growth))
                channels += growth
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as ``nn.Conv2d.reset_parameters`` does those of one layer."""
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn(self.blocks(self.conv(images))), inplace=True)
        return self.classifier(self.pool(x).flatten(1))
