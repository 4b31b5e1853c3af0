"""Shapes without numbers are those of the real run, operation by operation and network by network."""

from functools import partial

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import netslim
from netslim.engine import api
from netslim.engine.ops.table import shortcut
from netslim.engine.trace import meta_kernels, recorder
from netslim.modules import Network

aten = torch.ops.aten


def conv(x, w, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    return aten.convolution.default, (x, w, bias, stride, padding, dilation, False, (0, 0), groups)


NEWER = pytest.mark.skipif(torch.__version__ < "2.9", reason="PyTorch 2.8 lets it pass without numbers")
POOLS = (aten.max_pool2d_with_indices.default, aten.avg_pool2d.default)
x, y, line = torch.randn(2, 6, 9, 11), torch.randn(2, 6, 1, 1), torch.rand(6)
CASES = [
    conv(x, torch.randn(4, 6, 3, 5), None, (2, 3), (1, 0), (2, 1)),
    conv(x, torch.randn(12, 2, 3, 3), torch.randn(12), groups=3),
    (aten.convolution.default, (x, torch.randn(6, 4, 3, 3), None, (2, 2), (0, 0), (1, 1), True, (1, 1), 1)),
    (aten.native_batch_norm.default, (x, line, None, line, line, False, 0.1, 1e-5)),
    (aten.relu.default, (x,)),
    (aten.hardtanh.default, (x, 0.0, 6.0)),
    (aten.add.Tensor, (x, x)),
    (aten.add.Tensor, (y, x)),
    (aten.mul.Tensor, (x, y)),
    (aten.mul.Tensor, (x.transpose(2, 3), 2.0)),
    (aten.mul.Tensor, (y, x)),
    (aten.addmm.default, (line, x[0, 0], torch.randn(6, 11).t())),
    (aten._adaptive_avg_pool2d.default, (x, (3, 2))),
    (aten.mean.dim, (x, [2, -1])),
    (aten.mean.dim, (x, [-1], True)),
    (aten.cat.default, ([x, y.expand_as(x)[:, :2]], 1)),
    (aten.cat.default, ([x, x], -1)),
    *((pool, (x, (2, 2))) for pool in POOLS),
    *((pool, (x, (3, 2), (2, 2), (1, 0))) for pool in POOLS),
    (aten.max_pool2d_with_indices.default, (x, (3, 3), (2, 2), (0, 0), (1, 1), True)),
    (aten.max_pool2d_with_indices.default, (x, (2, 2), (3, 3), (1, 1), (1, 1), True)),
    (aten.max_pool2d_with_indices.default, (x, (2, 3), (1, 2), (1, 1), (2, 1))),
    (aten.max_pool2d_with_indices.default, (x.transpose(2, 3), (3, 3))),
    (aten.max_pool2d_with_indices.default, (x[0], (3, 3))),
    (aten.max_pool2d_with_indices.default, (x, (3,), (2,))),
    (aten.avg_pool2d.default, (x, (3, 3), (2, 2), (1, 1), True, False)),
    (aten.avg_pool2d.default, (x, (2, 2), (4, 4), (1, 1), True)),
]


def on_meta(value):
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), value)


@pytest.mark.parametrize(("func", "args"), CASES, ids=[func.name() for func, _ in CASES])
def test_an_operation(func, args):
    name = func._schema.name.removeprefix("aten::")
    inferred = meta_kernels.infer(shortcut(name), func, on_meta(args), {}, False)
    for mine, true in zip(
        torch.utils._pytree.tree_leaves(inferred), torch.utils._pytree.tree_leaves(func(*args)), strict=True
    ):
        assert (mine.shape, mine.dtype, mine.device.type) == (true.shape, true.dtype, "meta")
        assert mine.stride() == true.stride()


@given(
    size=st.integers(1, 20),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 6),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
    up=st.booleans(),
)
def test_pooling(size, kernel, stride, padding, dilation, up):
    """The same size as PyTorch's, or its error."""
    how = ((kernel, 2), (stride, 1), (padding, 0), (dilation, 1), up)
    image = torch.empty(1, 2, size, 7, device="meta")
    pool = aten.max_pool2d_with_indices.default
    infer = partial(meta_kernels.infer, meta_kernels.max_pool, pool, (image, *how), {})
    try:
        expected = aten.max_pool2d_with_indices.default(image, *how)[0].shape
    except RuntimeError:
        with pytest.raises(RuntimeError):
            infer(False)
    else:
        assert infer(False)[0].shape == expected


def test_in_place_is_the_same_tensor():
    a = on_meta(x)
    assert meta_kernels.infer(meta_kernels.pointwise, aten.add_.Tensor, (a, a), {}, True) is a
    with pytest.raises(RuntimeError, match="shape"):
        meta_kernels.infer(meta_kernels.pointwise, aten.add_.Tensor, (on_meta(y), a), {}, True)


@pytest.mark.parametrize(
    ("func", "args"),
    [
        conv(x, torch.randn(4, 5, 3, 3)),
        pytest.param(*conv(x, torch.randn(4, 6, 10, 3)), marks=NEWER),
        (aten.max_pool2d_with_indices.default, (x, (10, 3))),
        (aten.max_pool2d_with_indices.default, (x, (3, 3), (1, 1), (2, 2))),
        (aten.avg_pool2d.default, (x, (3, 3), (1, 1), (2, 2))),
        (aten.add.Tensor, (x, x[:, :4])),
        (aten.cat.default, ([x, x[..., :4]], 1)),
        (aten.addmm.default, (line, x[0, 0], torch.randn(6, 10).t())),
    ],
)
def test_what_does_not_fit_is_an_error(func, args):
    with pytest.raises(RuntimeError):
        meta_kernels.infer(shortcut(func._schema.name.removeprefix("aten::")), func, on_meta(args), {}, False)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "regnet_y_400mf", "shufflenet_v2_x1_0", "googlenet"])
def test_a_network_without_numbers_makes_the_same_tape(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, num_classes=10, **options)
    image = torch.randn(2, 3, 64, 64)
    hollow = api.analyse(Network(model), image).tape
    real, error = recorder.record(Network(model), image, passes=hollow.passes)
    assert hollow.on_meta
    assert not real.on_meta
    assert not error
    assert [node.name for node in hollow.nodes] == [node.name for node in real.nodes]
    assert [node.args for node in hollow.nodes] == [node.args for node in real.nodes]
    assert hollow.shape == real.shape
    assert hollow.dtype == real.dtype


class Gate(nn.Module):
    """Looks at numbers."""

    def forward(self, x):
        return x.abs() if float(x.max()) > 0 else x


def test_a_network_that_looks_at_numbers_runs_with_numbers():
    model = nn.Sequential(Gate(), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)).eval()
    image = torch.randn(2, 3, 8, 8)
    assert not api.analyse(Network(model), image).tape.on_meta
    keep = netslim.select_channels(model, 0.5, image)
    small = netslim.slim(model, keep, image)
    assert small[1].out_channels == 4
    torch.testing.assert_close(small(image), netslim.mask(model, keep)(image))


def test_mixed_dtypes_run_with_numbers():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    assert meta_kernels.suffice(Network(model), [x])
    assert not meta_kernels.suffice(Network(model), [x.double()])
    assert not meta_kernels.suffice(Network(model), [x.to("meta")])
    assert not meta_kernels.suffice(Network(model[0].half()), [x.half(), torch.arange(3)])
    with pytest.raises(ValueError, match="does not run on the example input"):
        netslim.slim(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), {}, torch.randn(1, 3, 8, 8).double())
