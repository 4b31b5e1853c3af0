"""Least squares against torch.linalg.lstsq on a toy, and what holds of whole networks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netslim
from netslim.nets import DenseNet

D = torch.float64


def toy() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, 2, "valid", padding_mode="reflect"),
        nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 2),
    )  # fmt: skip
    net = net.double().eval()
    nn.init.uniform_(net[1].weight)
    return net


def halved(net: nn.Module, x: torch.Tensor) -> nn.Module:
    return netslim.slim(net, netslim.select_channels(net, 0.5, x, floor=2), x)


def test_the_solution_of_lstsq():
    """The second convolution, by hand: its input in the slim network, with batch statistics, and the dense output."""
    net, x = toy(), torch.randn(50, 3, 9, 9, dtype=D)
    small = halved(net, x)
    read = F.relu(F.batch_norm(small[0](x), None, None, small[1].weight, small[1].bias, training=True))
    rows = F.unfold(read, 3, stride=2).transpose(1, 2).flatten(0, 1)
    kept = torch.tensor({n: k for n, d, k in small.netslim_plan["passes"][0]["keep"] if d == 0}["3.weight"])
    wanted = net[3](F.relu(net[1](net[0](x))))[:, kept].flatten(2).transpose(1, 2).flatten(0, 1)
    solution = torch.linalg.lstsq(torch.cat([rows, torch.ones(len(rows), 1, dtype=D)], 1), wanted).solution
    report = netslim.reconstruct(small, net, [x], ridge=1e-13)
    torch.testing.assert_close(small[3].weight.flatten(1), solution[:-1].T, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(small[3].bias, solution[-1], rtol=1e-6, atol=1e-8)
    residual = wanted - rows @ solution[:-1] - solution[-1]
    share = residual.square().sum() / (wanted - wanted.mean(0)).square().sum()
    assert report.layers["3"].after == pytest.approx(share.item(), rel=1e-6)
    assert report.layers["3"].rows == len(rows)
    assert list(report.layers) == ["3", "6"]
    assert report.skipped == {"0": "lack nothing"}
    assert (report.images, report.seconds > 0) == (50, True)


def grouped(groups: int) -> nn.Sequential:
    """Its second convolution, of 8 channels, has so many groups; the third reads all."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU()
    net = nn.Sequential(*layers, nn.Conv2d(8, 8, 3, groups=groups), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    return net.double().eval()


@pytest.mark.parametrize("groups", [2, 8])
def test_each_group_by_itself(groups):
    """The grouped convolution, by hand: lstsq of each group's outputs on the channels that it reads."""
    net, x = grouped(groups), torch.randn(50, 3, 9, 9, dtype=D)
    odd = torch.arange(8) % 2 == 1  # two of each half are kept
    small = netslim.slim(net, {"1": odd, "4": odd if groups == 2 else odd | True, "7": odd if groups == 2 else ~odd}, x)
    copied = copy.deepcopy(small)
    report = netslim.reconstruct(small, net, [x], ridge=1e-13)
    assert {"3", "6"} <= report.layers.keys()
    copied.load_state_dict({**small.state_dict(), **{f"6.{n}": t for n, t in copied[6].state_dict().items()}})
    read = F.relu(F.batch_norm(copied[3](F.relu(copied[1](copied[0](x)))), None, None, *copied[4].parameters(), True))
    wanted = net[6](F.relu(net[4](net[3](F.relu(net[1](net[0](x)))))))[:, odd if groups == 2 else ~odd]
    for part, target, weight, bias in zip(
        *(t.chunk(small[6].groups, 1) for t in (read, wanted)),
        *(t.chunk(small[6].groups) for t in (small[6].weight, small[6].bias)), strict=True,
    ):  # fmt: skip
        rows = F.unfold(part, 3).transpose(1, 2).flatten(0, 1)
        solution = torch.linalg.lstsq(F.pad(rows, (0, 1), value=1.0), target.flatten(2).transpose(1, 2).flatten(0, 1))
        torch.testing.assert_close(weight.flatten(1), solution.solution[:-1].T, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(bias, solution.solution[-1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("constant", [0.0, 0.3, 1.7])
def test_a_group_with_constant_inputs_is_left_as_it_is(constant):
    """In float32, where the variance of a constant is not quite 0."""
    net, x = grouped(8).float(), torch.randn(50, 3, 9, 9)
    small = netslim.slim(net, {"1": torch.arange(8) > 2}, x)
    with torch.no_grad():
        small[4].weight[2], small[4].bias[2] = 0, constant
    before = small[6].weight.clone()
    report = netslim.reconstruct(small, net, [x])
    assert (small[6].weight != before).flatten(1).any(1).tolist() == [n != 2 for n in range(8)]
    assert report.layers["6"].after < report.layers["6"].before


@pytest.mark.parametrize("ridge", [1e-9, 1.0, 1e6])
def test_no_error_grows(ridge):
    """However strong the ridge; with much of it, nothing moves."""
    net, x = toy(), torch.randn(40, 3, 9, 9, dtype=D)
    small = halved(net, x)
    weight = small[3].weight.clone()
    report = netslim.reconstruct(small, net, x.split(20), ridge=ridge)
    assert all(0 <= fitted.after < fitted.before for fitted in report.layers.values())
    assert torch.allclose(weight, small[3].weight, atol=1e-3) == (ridge == 1e6)


def test_what_can_be_made_again_is():
    """A removed channel that is a copy of another one: the readers get it from that, and the outputs are the dense."""
    net, x = toy(), torch.randn(60, 3, 9, 9, dtype=D)
    for tensor in [net[0].weight, net[0].bias, net[1].weight]:
        tensor.data[3:] = tensor.data[:3]
    netslim.recalibrate(net, [x])
    small = netslim.slim(net, {"1": torch.arange(6) < 3}, x)
    assert (small(x) - net(x)).abs().mean() > 0.05
    netslim.reconstruct(small, net, [x, x], images=60, ridge=1e-9)
    torch.testing.assert_close(small(x), net(x), rtol=5e-3, atol=5e-3)


def test_residual_and_dense_streams(network, oracle):
    """Through sums, selections and scatters: every layer gets closer to what it made in the dense network."""
    model, x, coupling = network
    x = x.repeat(4, 1, 1, 1) + 0.1 * torch.randn(16, *x.shape[1:], dtype=D)
    model.load_state_dict(model.state_dict())
    keep = netslim.select_channels(model, 0.4, x, coupling=coupling, floor=2)
    small, plain = netslim.slim(model, keep, x), netslim.slim(model, keep, x)
    report = netslim.reconstruct(small, model, [x])
    netslim.recalibrate(plain, [x])
    assert all(fitted.after < fitted.before for fitted in report.layers.values())
    assert set(report.skipped.values()) <= {"lack nothing"}
    lost = [(oracle.outputs(net, x) - oracle.outputs(model, x)).square().sum() for net in (small, plain)]
    assert lost[0] < 0.8 * lost[1]


def test_a_network_with_concatenations(oracle, images):
    x = images(16, 12)
    model = oracle.lively(DenseNet(13), x)
    small = halved(model, x)
    report = netslim.reconstruct(small, model, [x])
    assert all(fitted.after < fitted.before for fitted in report.layers.values())
    assert len(report.layers) > 8


def test_slim_twice():
    """The plan of the second pass counts in the first one's channels."""
    net, x = toy(), torch.randn(20, 3, 9, 9, dtype=D)
    small = netslim.slim(net, {"1": torch.tensor([False, True, True, True, False, True])}, x)
    first, small = small, netslim.slim(small, {"1": torch.tensor([True, False, True, True])}, x)
    assert netslim.reconstruct(copy.deepcopy(small), first, [x]).skipped == {"0": "lack nothing"}
    assert netslim.reconstruct(small, net, [x]).skipped == {"0": "lack nothing"}


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.depthwise, self.twice = nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1)
        self.unused, self.up = nn.Linear(3, 3), nn.ConvTranspose2d(4, 2, 2)
        self.wide = nn.Linear(2 * 8 * 8, 2)

    def forward(self, x):
        y = self.twice(self.twice(self.depthwise(F.relu(self.norm(self.first(x))))))
        return self.wide(self.up(y).flatten(1))


def test_what_is_skipped_is_named():
    torch.manual_seed(0)
    net, x = Odd().double().eval(), torch.randn(8, 3, 9, 9, dtype=D)
    small = netslim.slim(net, {"norm": torch.tensor([True, True, True, False])}, x)
    report = netslim.reconstruct(small, net, [x], largest=100)
    assert report.skipped == {
        "first": "lack nothing",
        "twice": "run 2 times",
        "up": "of class ConvTranspose2d",
        "wide": "with more than 100 inputs",
        "unused": "run 0 times",
    }
    assert str(report).startswith("reconstructed 1 layers on 8 images, ")
    assert "(skipped: 1 lack nothing, 1 run 2 times" in str(report)


def test_the_dense_network_is_left_alone():
    net, x = toy().train(), torch.randn(20, 3, 9, 9, dtype=D)
    small, before = halved(net, x), copy.deepcopy(net.state_dict())
    netslim.reconstruct(small, net, [x])
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(module.training for module in [*net.modules(), *small.modules()])
    assert not any(module._forward_hooks for module in [*net.modules(), *small.modules()])


def test_refusals():
    net, x = toy(), torch.randn(4, 3, 9, 9, dtype=D)
    small = halved(net, x)
    other = nn.Sequential(*net[:6], nn.Linear(36, 3))
    for arguments, options, why in [
        ((net, net, [x]), {}, "Sequential is not a result of netslim.slim: nothing was removed from it"),
        ((small, other, [x]), {}, "is not the dense network that was slimmed: they differ in 6.weight; give that one"),
        ((small, net, []), {}, "reconstruct needs at least one batch, got none"),
        ((small, net, x), {}, "reconstruct needs a list of batches or a data loader, got one Tensor"),
        ((small, net, [x]), {"ridge": 0}, "images=500, ridge=0 and largest=4608 must be above 0"),
    ]:
        with pytest.raises(ValueError, match=why):
            netslim.reconstruct(*arguments, **options)


def test_what_fails_changes_nothing():
    net, x = toy(), torch.randn(4, 3, 9, 9, dtype=D)
    small = halved(net, x)
    before = copy.deepcopy(small.state_dict())
    with pytest.raises(RuntimeError):
        netslim.reconstruct(small, net, [x, x[:, :2]])
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
