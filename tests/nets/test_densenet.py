"""DenseNet. Oracles: the authors' channel and parameter counts, a numpy forward pass."""

import numpy as np
import pytest
import torch
from torch import nn

from netslim.nets import DenseNet


def test_densenet40_has_the_authors_channels_and_parameters(oracle):
    network = DenseNet(40)
    assert oracle.bn_channels(network) == 9360
    assert oracle.parameters(network) == 1_059_298
    assert network.conv.out_channels == 24


@pytest.mark.parametrize("depth", [7, 13, 40])
def test_depth_counts_the_weighted_layers(depth):
    network = DenseNet(depth)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()) == depth


def test_initialisation(oracle):
    oracle.check_initialisation(DenseNet(13))


def test_forward_equals_a_second_implementation(oracle):
    network = oracle.randomise(DenseNet(10, growth=3, num_classes=4, in_channels=2))  # two layers a block
    images = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    weights = oracle.Weights(network)
    x = weights.conv(images.numpy(), "conv")
    for index in range(8):
        y = weights.conv(weights.bn_relu(x, f"blocks.{index}.bn"), f"blocks.{index}.conv")
        x = oracle.blocks(y, 2).mean(-1) if index in (2, 5) else np.concatenate([x, y], axis=1)
    x = weights.bn_relu(x, "bn")
    assert x.shape == (2, 6 + 6 * 3, 2, 2)
    logits = weights.linear(x.mean((2, 3)), "classifier")
    np.testing.assert_allclose(network(images).detach().numpy(), logits, rtol=1e-10, atol=1e-10)


def test_captured_whole_by_compile_and_export(oracle):
    oracle.check_capture(DenseNet(10, growth=4, num_classes=3, in_channels=1), torch.randn(5, 1, 8, 8))


@pytest.mark.parametrize("depth", [4, 6, 41, -2])
def test_a_wrong_depth_is_named_with_the_rule(depth):
    with pytest.raises(ValueError, match=rf"of depth {depth}; it must be 3n \+ 4"):
        DenseNet(depth)
