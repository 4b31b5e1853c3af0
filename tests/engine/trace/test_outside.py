"""Values that leave torch in the forward pass are held; what comes in is unknown: slim equals masked."""

import copy
import ctypes
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import netslim


class Net(nn.Module):
    """outside(y) -> a gate of shape (N, 1, H, W) or a number, computed outside of torch."""

    def __init__(self, outside):
        super().__init__()
        self.outside = outside
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        y = self.second(self.first(x))
        return self.head(self.last(y * torch.sigmoid(Outside.apply(y, self.outside))).mean((2, 3)))


class Outside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, outside):
        return outside(y)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.expand(gradient.shape[0], 16, *gradient.shape[2:]) / 16, None


def numpy(y):
    return torch.from_numpy(y.detach().numpy().mean(axis=1, keepdims=True).copy())


def array(y):
    return torch.as_tensor(np.asarray(y.detach()).mean(axis=1, keepdims=True))


def lists(y):
    return torch.tensor(np.array(y.detach().tolist()).mean(axis=1, keepdims=True))


def dlpack(y):
    return torch.from_dlpack(np.from_dlpack(y.detach()).mean(axis=1, keepdims=True))


def capsule(y):
    return torch.from_dlpack(torch.utils.dlpack.to_dlpack(y.detach() + 0)).mean(1, keepdim=True)


def address(y):
    y = y.detach().contiguous()
    values = (ctypes.c_double * y.numel()).from_address(y.data_ptr())
    return torch.tensor(np.array(values).reshape(y.shape).mean(axis=1, keepdims=True))


def copied(y):
    return copy.deepcopy(y.detach()).mean(1, keepdim=True)


def pickled(y):
    return pickle.loads(pickle.dumps(y.detach())).mean(1, keepdim=True)


def hidden(y):
    """Through a view whose operation reads nothing else."""
    return torch.frombuffer(bytearray(y.detach().neg().numpy().tobytes()), dtype=y.dtype).reshape(y.shape).mean(1, True)


WAYS = [numpy, array, lists, dlpack, capsule, address, copied, pickled, hidden]


@pytest.mark.parametrize("outside", WAYS, ids=lambda way: way.__name__)
def test_what_is_read_outside_is_held(outside, oracle, images):
    x = images(8)
    model = oracle.lively(Net(outside), x)
    keep = netslim.select_channels(model, 0.5, x)
    assert list(keep) == ["first.1", "last.1"]
    small = oracle.prove(model, keep, x, train=outside in (numpy, array))
    assert small.second[0].out_channels == 16
    own = {**keep, "second.1": torch.arange(16) % 2 == 0}
    oracle.prove(model, own, x, train=False)


def test_constants_from_numpy_hold_nothing(oracle, images):
    x = images(8)
    model = oracle.lively(Net(lambda y: torch.from_numpy(np.linspace(0, 1, 64).reshape(1, 1, 8, 8))), x)
    keep = netslim.select_channels(model, 0.5, x)
    assert list(keep) == ["first.1", "second.1", "last.1"]
    oracle.prove(model, keep, x, train=False)
