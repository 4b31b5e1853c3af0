"""select_channels: what is asked, what is delivered, what is held back."""

import pytest
import torch
import torchvision
from torch import nn

import netslim
from netslim.nets.preresnet import PreResNet


@pytest.fixture
def resnet(images, oracle):
    x = images(32)
    return oracle.lively(torchvision.models.resnet18(num_classes=10), x), x


def removed(keep):
    return {(name, i) for name, stays in keep.items() for i in (~stays).nonzero().flatten().tolist()}


@pytest.mark.parametrize("coupling", ["keep", "group"])
def test_removed_set_grows_with_the_ratio_and_stays_under_it(resnet, coupling):
    model, x = resnet
    last, params = set(), float("inf")
    for ratio in (0.0, 0.2, 0.4, 0.6, 0.8):
        keep = netslim.select_channels(model, ratio, x, coupling=coupling)
        now = removed(keep)
        assert last <= now
        assert len(now) == keep.removed <= ratio * keep.prunable
        assert keep.removed > ratio * keep.prunable - 10  # a residual stream of resnet18 has at most 5 writers
        small = sum(p.numel() for p in netslim.slim(model, keep, x).parameters())
        assert small <= params
        last, params = now, small


def test_keep_is_exact_and_leaves_streams_alone(resnet):
    model, x = resnet
    keep = netslim.select_channels(model, 0.5, x)
    assert list(keep) == [
        name for name in netslim.bn_layers(model) if name.startswith("layer") and name.endswith("bn1")
    ]
    assert keep.removed == 960 == keep.prunable // 2
    assert keep.held_back == {"coupled": 4800 - 1920}
    assert keep.asked == 0.5


def test_group_removes_a_stream_from_all_its_writers(resnet):
    model, x = resnet
    keep = netslim.select_channels(model, 0.5, x, coupling="group")
    assert torch.equal(keep["bn1"], keep["layer1.0.bn2"])
    assert torch.equal(keep["layer2.0.bn2"], keep["layer2.0.downsample.1"])
    assert keep.prunable == 4800
    small = netslim.slim(model, keep, x)
    assert {n: b.num_features for n, b in netslim.bn_layers(small).items()} == {
        n: int(k.sum()) for n, k in keep.items()
    }


def test_a_live_channel_of_one_writer_keeps_the_stream_channel(resnet):
    """Ranked by the largest γ: a mean over the writers would drop it."""
    model, x = resnet
    for name in ("bn1", "layer1.0.bn2", "layer1.1.bn2"):
        model.get_submodule(name).weight.data[:32] = 0.0
    model.layer1[1].bn2.weight.data[3] = 0.2
    keep = netslim.select_channels(model, 93.5 / 4800, x, coupling="group")
    assert removed(keep) == {(n, i) for n in ("bn1", "layer1.0.bn2", "layer1.1.bn2") for i in range(32) if i != 3}


def test_dead_scales_go_first_and_nothing_live_is_lost(resnet):
    model, x = resnet
    dead = set()
    for name in netslim.select_channels(model, 0.5, x):
        gamma = model.get_submodule(name).weight.data
        gone = torch.randperm(len(gamma))[: len(gamma) // 2]
        gamma[gone] = 0.0
        dead |= {(name, i) for i in gone.tolist()}
    assert removed(netslim.select_channels(model, 0.5, x)) == dead


def test_floor_and_rounding(resnet):
    model, x = resnet
    keep = netslim.select_channels(model, 0.9, x, floor=12)
    assert min(int(k.sum()) for k in keep.values()) == 12
    keep = netslim.select_channels(model, 0.5, x, round_to=8)
    assert all(int(k.sum()) % 8 == 0 for k in keep.values())
    with pytest.raises(ValueError, match=r"highest reachable ratio is 0\.\d+"):
        netslim.select_channels(model, 0.9, x, floor=50)


def test_ties_and_signed_scales(oracle, images):
    x = images(32)
    model = oracle.lively(PreResNet(11), x)
    for layer in netslim.bn_layers(model).values():
        layer.weight.data = layer.weight.data.sign() * 0.5
    for ratio in (0.3, 0.6, 0.9):
        keep = netslim.select_channels(model, ratio, x)
        assert keep.removed == int(ratio * keep.prunable + 1e-9)
        netslim.slim(model, keep, x)


def test_a_number_made_from_the_width_holds_the_channels(oracle, images):
    """With fewer channels the factor would be another one."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
            self.b = nn.Sequential(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))

        def forward(self, x):
            x = self.a(x)
            return self.b(x * x.shape[1] ** -0.5)

    x = images(8)
    model = oracle.lively(Scaled(), x)
    oracle.prove(model, {"a.1": torch.arange(8) % 2 == 0, "b.1": torch.arange(6) > 2}, x)
    keep = netslim.select_channels(model, 0.5, x)
    assert list(keep) == ["b.1"]
    assert keep.held_back == {"mul": 8}


def test_dead_scales_of_a_grouped_convolution_go_before_live_ones(oracle, images):
    """Though its groups hold unequal numbers of them: the surplus is carried along."""
    x = images(8)
    model = oracle.lively(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)),
        ),
        x,
    )
    dead = {"1": torch.tensor([1, 1, 1, 0, 0, 1, 0, 0]).bool(), "4": torch.tensor([0, 1, 0, 0, 1, 1, 1, 0]).bool()}
    for name, gone in dead.items():
        model.get_submodule(name).weight.data[gone] = 0.0
    keep = netslim.select_channels(model, 0.5, x)
    assert all(torch.equal(~keep[name], gone) for name, gone in dead.items())
    assert (keep.removed, keep.carried) == (8, 4)
    small = oracle.prove(model, keep, x)
    assert [small[i].num_features for i in (1, 4)] == [6, 6]
    more = netslim.select_channels(model, 0.75, x)  # the live ones of the same rank: both groups are level again
    assert all((more[name] <= keep[name]).all() for name in dead)
    small = oracle.prove(model, more, x)
    assert more.carried == sum(small[i].num_features for i in (1, 4)) - sum(int(k.sum()) for k in more.values())


def test_groups_of_one_channel_leave_whole(oracle, images):
    """With all their channels but one gone, in the order of the |γ| of what is left, and both sides together."""
    x = images(8)
    model = oracle.lively(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)),
        ),
        x,
    )
    model[1].weight.data = torch.tensor([0.8, 0.1, 0.3, 0.2, -0.7, 0.1, 0.1, 0.5]).double()
    model[4].weight.data = torch.tensor([0.4, 0.6, 0.1, 0.2, 0.1, -0.3, 0.1, 0.1]).double()
    left = {}
    for ratio in (0.5, 0.63, 0.75, 0.88):
        keep = netslim.select_channels(model, ratio, x)
        small = oracle.prove(model, keep, x)
        assert keep.carried == 0
        assert small[3].weight.shape[:2] == (small[3].groups, 1)
        left[ratio] = [keep[name].nonzero().flatten().tolist() for name in ("1", "4")]
    assert left == {
        0.5: [[0, 2, 4, 7], [1, 3, 5, 7]],
        0.63: [[0, 4, 7], [1, 5, 7]],  # the second group: 0.3 at most
        0.75: [[0, 4], [1, 5]],  # then the fourth: 0.5
        0.88: [[0], [1]],
    }


def test_a_branch_that_ends_in_a_norm_of_its_own_stream_leaves_with_the_stream(oracle, images):
    """As in ConvMixer: x + norm(gelu(depthwise(x))) exists where x does, so the norm need not select from its input."""

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.BatchNorm2d(8))
            self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.GELU(), nn.BatchNorm2d(8))
            self.head = nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.branch(x))

    x = images(8)
    model = oracle.lively(Mixer(), x)
    keep = netslim.select_channels(model, 0.5, x, coupling="group")
    assert (keep.prunable, keep.removed, keep.held_back) == (16, 8, {})
    small = oracle.prove(model, keep, x)
    assert small.branch[0].weight.shape == (4, 1, 3, 3)


def test_channels_of_a_mean_with_learnt_weights_can_leave(oracle, images):
    """Global context: softmax over the pixels, then a matrix product of channels × pixels and pixels × 1."""

    class Context(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
            self.weights, self.gate, self.head = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = self.a(x)
            mean = x.flatten(2) @ self.weights(x).flatten(2).softmax(-1).transpose(1, 2)
            return self.head(x * self.gate(mean[..., None]).sigmoid())

    x = images(8)
    model = oracle.lively(Context(), x)
    keep = netslim.select_channels(model, 0.5, x)
    assert (keep.prunable, keep.removed, keep.held_back) == (8, 4, {})
    assert oracle.prove(model, keep, x).gate.weight.shape == (4, 4, 1, 1)


@pytest.mark.parametrize("coupling", ["keep", "group", "scatter"])
def test_layers_without_a_shift(coupling, images):
    """γ without β: BatchNorm2d(..., bias=False), where PyTorch has it."""
    x = images(8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).double()
    model[1].register_parameter("bias", None)
    model[1].weight.data = torch.tensor([0.5, -0.1, 0.9, 0.2, -0.7, 0.8, 0.3, 0.6]).double()
    keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
    assert keep["1"].tolist() == [False, False, True, False, True, True, False, True]
    small, masked = netslim.slim(model, keep, x), netslim.mask(model, keep)
    assert small[0].out_channels == 4
    torch.testing.assert_close(small(x), masked(x))
    torch.testing.assert_close(small.eval()(x), masked.eval()(x))
