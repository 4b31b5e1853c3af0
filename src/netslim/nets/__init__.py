"""The networks of the paper, for small images. Any other network with BatchNorm can be slimmed as well."""

from netslim.nets.densenet import DenseNet
from netslim.nets.library import timm_network
from netslim.nets.preresnet import PreResNet
from netslim.nets.vgg import VGG, vgg

__all__ = ["VGG", "DenseNet", "PreResNet", "timm_network", "vgg"]
