"""Pre-activation ResNet with bottlenecks (He et al. 2016), as the authors slim it: BatchNorm, ReLU, convolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from netslim.nets.initialisation import initialise


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions, each behind its BatchNorm; the shortcut reads the stream before the first one."""

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        out_channels = 4 * width
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        x = self.conv1(F.relu(self.bn1(stream), inplace=True))
        x = self.conv2(F.relu(self.bn2(x), inplace=True))
        x = self.conv3(F.relu(self.bn3(x), inplace=True))
        return x + self.shortcut(stream)


class PreResNet(nn.Module):
    """Images (N, in_channels, H, W) to logits (N, num_classes); made for 32×32.

    Args:
        depth: 9n + 2, e.g. 29, 56, 110, 164 (default): n bottlenecks in each of three stages (16, 32, 64 channels, ×4).
        num_classes: default 10.
        in_channels: default 3.

    ResNet-164 has 12112 BatchNorm channels and 1,703,258 parameters. The authors' network carries a channel_selection
    layer behind every first BatchNorm of a block; here slimming puts one where it is needed, and only then.
    """

    def __init__(self, depth: int = 164, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 11 or (depth - 2) % 9:
            raise ValueError(f"no pre-activation ResNet of depth {depth}; it must be 9n + 2, such as 29, 56 or 164")
        blocks = (depth - 2) // 9
        self.conv = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        stages: list[nn.Module] = []
        channels = 16
        for width, first_stride in ((16, 1), (32, 2), (64, 2)):
            for index in range(blocks):
                stages.append(Bottleneck(channels, width, stride=first_stride if index == 0 else 1))
                channels = 4 * width
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as ``nn.Conv2d.reset_parameters`` does those of one layer."""
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stages(self.conv(images))), inplace=True)
        return self.classifier(self.pool(x).flatten(1))
