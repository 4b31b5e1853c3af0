"""What comes out behaves like the network that went in."""

import copy
import pickle
import shutil
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netslim
from netslim.nets import PreResNet


def toy():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 3))


KEEP = {"1": torch.arange(8) % 2 == 0}


def slimmed(model, x, coupling, ratio=0.5):
    return netslim.slim(model, netslim.select_channels(model, ratio, x, coupling=coupling), x)


@pytest.fixture
def small(network):
    model, x, coupling = network
    small = slimmed(model, x, coupling)
    stem = next(m for m in small.modules() if isinstance(m, nn.Conv2d))
    hooks = {name.rpartition(".")[2] for name, _ in small.named_buffers()} & {"channel_index", "channel_place"}
    assert hooks == (
        {"channel_index"} if isinstance(model, PreResNet) else {"channel_place"} if coupling == "scatter" else set()
    )
    assert (stem.out_channels == 16) == isinstance(model, PreResNet)
    return small, x


def close(a, b, tolerance=1e-9):
    """Equal, in units of what the outputs tell the inputs apart by."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    assert float((a - b).detach().abs().max()) < tolerance * float(b.detach().std(0).mean())


def test_dynamic_batch_and_size(small):
    small, x = small
    y = small(x)
    close(small(x[:2]), y[:2])
    close(small(torch.cat([x, x])), torch.cat([y, y]))
    assert small(torch.randn(2, 3, 24, 40).double()).shape == (2, 10)


def test_jit_trace(small):
    small, x = small
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates jit.trace
        traced = torch.jit.trace(small, x)
    close(traced(torch.cat([x, x])), small(torch.cat([x, x])))


def test_export(small):
    small, x = small
    program = torch.export.export(small, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (x[:3], torch.cat([x, x])):
        close(program.module()(batch), small(batch))


def test_compile_in_one_graph(small):
    small, x = small
    compiled = torch.compile(small, fullgraph=True, backend="aot_eager")
    close(compiled(x), small(x))
    compiled(x).square().mean().backward()
    assert all(p.grad is not None for p in small.parameters())


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_compile_to_machine_code(small):
    small, x = small
    with torch.no_grad():
        close(torch.compile(small, fullgraph=True)(x), small(x))


@pytest.mark.slow
def test_onnx(small, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    small, x = small[0].float(), small[1].float()
    path = str(tmp_path / "small.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own dependencies
        torch.onnx.export(small, (x,), path, dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (x, torch.cat([x, -x, x[:1]])):
        (y,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        close(torch.from_numpy(y), small(batch), 1e-4)


def test_slim_again_and_save(network, oracle, tmp_path):
    """Each time other layers, so that neither half of the plan is enough."""
    model, x, coupling = network

    def half(model, i):
        keep = netslim.select_channels(model, 0.4, x, coupling=coupling)
        for name in list(keep)[i::2]:
            del keep[name]
        return keep

    once = oracle.prove(model, half(model, 0), x)
    twice = oracle.prove(once, half(once, 1), x)
    assert netslim.count(twice, x).macs < netslim.count(once, x).macs < netslim.count(model, x).macs
    netslim.save(twice, tmp_path / "twice.pt")
    loaded = netslim.load(tmp_path / "twice.pt", model)
    for copied in (loaded, copy.deepcopy(twice), pickle.loads(pickle.dumps(twice))):
        assert torch.equal(copied(x), twice(x))


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
    seen, hooks = [], []
    for module in last.modules():
        if "channel_index" in dict(module.named_buffers(recurse=False)):
            hooks.append(module.layer.register_forward_hook(lambda _, args, out: seen.append(args[0])))
    x = x.double()
    torch.testing.assert_close(last(x), first(x), rtol=0, atol=1e-12)
    assert seen
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images in seen)
    for hook in hooks:  # what it keeps would be an output
        hook.remove()
    assert netslim.count(last, example_input=x) == netslim.count(first, example_input=x)
    smaller = [netslim.slim(net, netslim.select_channels(net, 0.3, x), example_input=x) for net in (first, last)]
    torch.testing.assert_close(smaller[1](x), smaller[0](x), rtol=0, atol=1e-12)
    assert netslim.count(smaller[1], example_input=x) == netslim.count(smaller[0], example_input=x)


def test_inference_mode_changes_nothing(network, oracle, tmp_path):
    """Lightning's evaluation loops run in it. What comes out can be trained."""
    model, x, coupling = network
    cost, keep = netslim.count(model, x), netslim.select_channels(model, 0.5, x, coupling=coupling)
    with torch.inference_mode():
        assert netslim.count(model, x) == cost
        again = netslim.select_channels(model, 0.5, x.clone(), coupling=coupling)
        small = netslim.slim(model, again, x.clone())
        netslim.save(small, tmp_path / "small.pt")
        loaded, masked = netslim.load(tmp_path / "small.pt", model), netslim.mask(model, keep)
    assert all(torch.equal(again[name], stays) for name, stays in keep.items())
    assert not again.held_back.get("not run with the example input")
    for made in (small, loaded, masked):
        oracle.outputs(made, x).square().sum().backward()
        assert not any(tensor.is_inference() for tensor in made.state_dict().values())
    assert oracle.deviation(masked, small, x) < 1e-9
