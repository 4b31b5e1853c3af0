"""A second implementation of the layers, in numpy and from their definitions: what the networks are compared with."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn


def convolve(x, weight, *, stride=1, padding=0):
    """(N, C, H, W) with (O, C, k, k): the sum over kernel positions, written out."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    k = weight.shape[2]
    height, width = ((size - k) // stride + 1 for size in x.shape[2:])
    out = np.zeros((len(x), len(weight), height, width))
    for i in range(height):
        for j in range(width):
            patch = x[:, :, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, :, i, j] = np.tensordot(patch, weight, axes=((1, 2, 3), (1, 2, 3)))
    return out


def blocks(x, size):
    """(N, C, H, W) to (N, C, H/size, W/size, size·size)."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // size, size, w // size, size).swapaxes(3, 4).reshape(n, c, h // size, w // size, -1)


class Weights:
    """The numbers of a network's state_dict, by name, with the layers that use them."""

    def __init__(self, network):
        self.state = {name: value.double().numpy() for name, value in network.state_dict().items()}

    def conv(self, x, name, *, stride=1):
        weight = self.state[f"{name}.weight"]
        return convolve(x, weight, stride=stride, padding=weight.shape[2] // 2)

    def bn_relu(self, x, name):
        gamma, beta, mean, variance = (
            self.state[f"{name}.{key}"].reshape(-1, 1, 1) for key in ("weight", "bias", "running_mean", "running_var")
        )
        return np.maximum((x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)

    def linear(self, x, name):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]


def randomise(network):
    """The network in eval mode and float64, its BatchNorms with a history: no statistic, no scale at its default."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network.double().eval()


def bn_channels(network):
    return sum(module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def check_initialisation(network):
    """Section 4.2 and the authors' code: conv N(0, 2/(k·k·out)), γ = 0.5, β = 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach()
            expected = (2 / (weight.shape[0] * weight.shape[2] * weight.shape[3])) ** 0.5
            tolerance = 5 / (2 * weight.numel()) ** 0.5  # five standard errors of a standard deviation
            assert weight.std().item() == pytest.approx(expected, rel=tolerance)
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 0.5).all()
            assert (module.bias == 0).all()


def check_capture(network, images):
    """One graph for torch.compile, and torch.export with a free batch size: the same logits."""
    torch._dynamo.reset()  # what other tests compiled counts against its limit
    network.eval()
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(images), expected)
        free = ({0: torch.export.Dim("batch", min=2, max=64)},)
        exported = torch.export.export(network, (images[:2],), dynamic_shapes=free).module()
        torch.testing.assert_close(exported(images), expected)


@pytest.fixture
def oracle():
    return SimpleNamespace(
        Weights=Weights, blocks=blocks, randomise=randomise, bn_channels=bn_channels, parameters=parameters,
        check_initialisation=check_initialisation, check_capture=check_capture,
    )  # fmt: skip
