"""What comes out behaves like the network that went in."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netslim
from netslim.nets.densenet import DenseNet
from netslim.nets.preresnet import PreResNet


@pytest.fixture(params=[lambda: PreResNet(11), lambda: DenseNet(10)], ids=["preresnet", "densenet"])
def pair(request):
    """A slim network with selections, float32, and its input."""
    x = torch.randn(4, 3, 32, 32)
    model = request.param().eval()
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight, -1, 1)
    return netslim.slim(model, netslim.select_channels(model, 0.5, x), x), x


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_dynamic_batch_and_size(pair):
    small, x = pair
    y = small(x)
    close(small(x[:1]), y[:1])
    close(small(torch.cat([x, x])), torch.cat([y, y]))
    assert small(torch.randn(2, 3, 48, 48)).shape == (2, 10)


def test_jit_trace(pair):
    small, x = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates jit.trace
        traced = torch.jit.trace(small, x)
    close(traced(torch.cat([x, x])), small(torch.cat([x, x])))


def test_export(pair):
    small, x = pair
    program = torch.export.export(small, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    close(program.module()(x[:3]), small(x[:3]))


def test_compile_in_one_graph(pair):
    small, x = pair
    with torch.no_grad():
        close(torch.compile(small, fullgraph=True, backend="aot_eager")(x), small(x))


@pytest.mark.slow
def test_onnx(pair, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    small, x = pair
    path = str(tmp_path / "small.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own dependencies
        torch.onnx.export(small, (x,), path, dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (x, x[:2]):
        (y,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        close(torch.from_numpy(y), small(batch).detach())


def toy():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 3))


KEEP = {"1": torch.arange(8) % 2 == 0}


def test_modes_requires_grad_dtype_and_hooks_stay():
    model = toy().to(torch.bfloat16).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    calls = []
    model[4].register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16)
    random = torch.get_rng_state()
    small = netslim.slim(model, KEEP, x)
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in small] == [m.training for m in model] == [True, False, True, True, True]
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(p.dtype == torch.bfloat16 for p in small.parameters())
    assert [type(m) for m in small.modules()] == [type(m) for m in model.modules()]
    assert repr(small[0]) == "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))"
    calls.clear()
    small(x)
    assert calls == [1]
    assert not {p.data_ptr() for p in small.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_channels_last_stays():
    model = toy().to(memory_format=torch.channels_last)
    small = netslim.slim(model, KEEP, torch.randn(2, 3, 8, 8))
    assert small[4].weight.is_contiguous(memory_format=torch.channels_last)
    assert not small[4].weight.is_contiguous()


def test_shared_modules_and_tied_parameters(oracle, images):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.a, self.b = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 1)

        def forward(self, x):
            x = F.relu(self.bn(self.stem(x)))
            for _ in range(2):
                x = F.relu(self.bn(self.conv(x)))
            return self.a(x), self.b(x * 2)

    x = images(8)
    model = oracle.lively(Shared(), x)
    model.b.weight = model.a.weight
    small = oracle.prove(model, {"bn": torch.arange(8) > 2}, x)
    assert small.b.weight is small.a.weight
    assert small.bn.num_features == 5


def test_several_and_keyword_inputs(oracle):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(2, 8, 3)
            self.bn, self.out = nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)

        def forward(self, x, other=None, *, gain=1.0):
            x = self.a(x) if other is None else self.a(x) + self.b(other)
            return {"y": self.out(F.relu(self.bn(x))) * gain}

    x, other = torch.randn(4, 3, 8, 8).double(), torch.randn(4, 2, 8, 8).double()
    for example in ((x, other), {"x": x, "other": other, "gain": 2.0}):
        model = oracle.lively(Two(), example)
        small = oracle.prove(model, netslim.select_channels(model, 0.5, example), example)
        assert small.b.out_channels == 4


def test_sync_batchnorm_and_three_dimensions(oracle):
    for conv, bn, size in ((nn.Conv1d, nn.BatchNorm1d, (9,)), (nn.Conv3d, nn.BatchNorm3d, (5, 5, 5))):
        x = torch.randn(4, 3, *size).double()
        model = oracle.lively(nn.Sequential(conv(3, 8, 3), bn(8), nn.GELU(), conv(8, 4, 3)), x)
        oracle.prove(model, KEEP, x)
    x = torch.randn(2, 3, 8, 8)
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(toy()).eval()
    small = netslim.slim(sync, KEEP, x)
    assert isinstance(small[1], nn.SyncBatchNorm)
    torch.testing.assert_close(small(x), netslim.mask(sync, KEEP)(x))


def test_a_selection_keeps_images_channels_last_and_can_be_slimmed_again():
    """A selection that returned to channels-first memory made all layers behind it slow."""
    torch.manual_seed(0)
    network, x = PreResNet(20).eval(), torch.randn(2, 3, 16, 16)
    for bn in netslim.bn_layers(network).values():
        torch.nn.init.uniform_(bn.weight)
    first = netslim.slim(network, netslim.select_channels(network, 0.4, x), example_input=x).double()
    last = copy.deepcopy(first).to(memory_format=torch.channels_last)
    seen = []
    for bn in netslim.bn_layers(last).values():
        if hasattr(bn, "channel_index"):
            bn.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    x = x.double()
    torch.testing.assert_close(last(x), first(x), rtol=0, atol=1e-12)
    assert seen
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images in seen)
    assert netslim.count(last, example_input=x) == netslim.count(first, example_input=x)
    smaller = [netslim.slim(net, netslim.select_channels(net, 0.3, x), example_input=x) for net in (first, last)]
    torch.testing.assert_close(smaller[1](x), smaller[0](x), rtol=0, atol=1e-12)
    assert netslim.count(smaller[1], example_input=x) == netslim.count(smaller[0], example_input=x)
