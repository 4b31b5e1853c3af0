"""A network for test_ddp.py: with statistics of each process's own batch, two processes would not equal one."""

from __future__ import annotations

from torch import nn

from netslim.nets import VGG


class Frozen(nn.BatchNorm2d):
    """Uses its running statistics in training too."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.train()  # Lightning leaves every module in the mode in which it was made

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)


class Net(VGG):
    def __init__(self, num_classes: int) -> None:
        super().__init__([8, "M", 12], num_classes=num_classes)
        for name, layer in enumerate(self.features):
            if isinstance(layer, nn.BatchNorm2d):
                self.features[name] = Frozen(layer.num_features)
        self.reset_parameters()
