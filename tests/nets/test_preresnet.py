"""Pre-activation ResNet. Oracles: the authors' channel and parameter counts, a numpy forward pass."""

import numpy as np
import pytest
import torch
from torch import nn

from netslim.nets import PreResNet


def test_resnet164_has_the_authors_channels_and_parameters(oracle):
    network = PreResNet(164)
    assert oracle.bn_channels(network) == 12112
    assert oracle.parameters(network) == 1_703_258


@pytest.mark.parametrize("depth", [11, 20, 29])
def test_depth_counts_the_weighted_layers_of_the_main_path(depth):
    network = PreResNet(depth)
    layers = [
        name for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in name
    ]
    assert len(layers) == depth


def test_initialisation(oracle):
    oracle.check_initialisation(PreResNet(20))


def test_forward_equals_a_second_implementation(oracle):
    network = oracle.randomise(PreResNet(20, num_classes=3, in_channels=2))  # a block with, one without projection
    images = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    weights = oracle.Weights(network)
    x = weights.conv(images.numpy(), "conv")
    for index in range(6):
        block, stride = f"stages.{index}", 2 if index in (2, 4) else 1
        y = weights.conv(weights.bn_relu(x, f"{block}.bn1"), f"{block}.conv1")
        y = weights.conv(weights.bn_relu(y, f"{block}.bn2"), f"{block}.conv2", stride=stride)
        y = weights.conv(weights.bn_relu(y, f"{block}.bn3"), f"{block}.conv3")
        # The shortcut reads the stream before its BatchNorm.
        x = y + (weights.conv(x, f"{block}.shortcut", stride=stride) if index % 2 == 0 else x)
    x = weights.bn_relu(x, "bn")
    assert x.shape == (2, 256, 2, 2)
    logits = weights.linear(x.mean((2, 3)), "classifier")
    np.testing.assert_allclose(network(images).detach().numpy(), logits, rtol=1e-10, atol=1e-10)


def test_no_selection_layer_is_in_the_dense_network():
    kinds = {type(module) for module in PreResNet(20).modules() if not list(module.children())}
    assert kinds == {nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.Identity, nn.AdaptiveAvgPool2d}


def test_captured_whole_by_compile_and_export(oracle):
    oracle.check_capture(PreResNet(11, num_classes=3, in_channels=1), torch.randn(5, 1, 8, 8))


@pytest.mark.parametrize("depth", [2, 18, 163, -7])
def test_a_wrong_depth_is_named_with_the_rule(depth):
    with pytest.raises(ValueError, match=rf"of depth {depth}; it must be 9n \+ 2"):
        PreResNet(depth)
