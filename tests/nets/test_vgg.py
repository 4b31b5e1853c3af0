"""VGG. Oracles: the authors' channel and parameter counts, a numpy forward pass, closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from netslim.nets import VGG, vgg


def test_vgg19_has_the_authors_channels_and_parameters(oracle):
    network = vgg(19)
    assert oracle.bn_channels(network) == 5504
    assert oracle.parameters(network) == 20_035_018


@pytest.mark.parametrize(("depth", "channels"), [(11, 2752), (13, 2944), (16, 4224), (19, 5504)])
def test_depth_counts_the_convolutions_and_the_classifiers(oracle, depth, channels):
    network = vgg(depth)
    assert oracle.bn_channels(network) == channels
    # The name is ImageNet's: three linear layers there, one here.
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == depth - 3
    assert sum(isinstance(module, nn.MaxPool2d) for module in network.modules()) == 4


def test_width_multiplies_every_layer(oracle):
    whole = [m.num_features for m in vgg(16).modules() if isinstance(m, nn.BatchNorm2d)]
    quarter = [m.num_features for m in vgg(16, width=0.25).modules() if isinstance(m, nn.BatchNorm2d)]
    assert quarter == [channels // 4 for channels in whole]


def test_initialisation(oracle):
    network = vgg(16, width=0.25)
    oracle.check_initialisation(network)
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=5 / math.sqrt(2 * 1280))
    assert (network.classifier.bias == 0).all()


def test_forward_equals_a_second_implementation(oracle):
    network = oracle.randomise(VGG([3, "M", 5, 4], num_classes=6, in_channels=2))
    images = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    weights = oracle.Weights(network)
    x = weights.bn_relu(weights.conv(images.numpy(), "features.0"), "features.1")
    x = oracle.blocks(x, 2).max(-1)
    x = weights.bn_relu(weights.conv(x, "features.4"), "features.5")
    x = weights.bn_relu(weights.conv(x, "features.7"), "features.8")
    logits = weights.linear(x.mean((2, 3)), "classifier")
    np.testing.assert_allclose(network(images).detach().numpy(), logits, rtol=1e-11, atol=1e-11)


def test_the_last_pooling_is_the_authors_2x2_average_on_32x32_images(oracle):
    network = oracle.randomise(vgg(11, width=0.05))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    features = network.features(images)
    assert features.shape[2:] == (2, 2)
    expected = network.classifier(nn.functional.avg_pool2d(features, 2).flatten(1))
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("size", [8, 11, 32])
def test_any_size_large_enough_for_the_poolings_works(size):
    network = VGG([16, 16, "M", 32, 32, "M", 64, 64], in_channels=1)
    assert network(torch.zeros(2, 1, size, size)).shape == (2, 10)


def test_captured_whole_by_compile_and_export(oracle):
    oracle.check_capture(VGG([4, "M", 6], num_classes=3, in_channels=1), torch.randn(5, 1, 8, 8))


@pytest.mark.parametrize("depth", [0, 12, 17, "19"])
def test_a_wrong_depth_is_named_with_the_right_ones(depth):
    with pytest.raises(ValueError, match=f"no VGG of depth {depth}; choose 11, 13, 16 or 19"):
        vgg(depth)
