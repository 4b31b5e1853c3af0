"""A slim network survives the disk, and only as itself."""

import copy
import json
import pickle

import pytest
import torch
import torchvision
from torch import nn

import netslim
from netslim.nets.densenet import DenseNet
from netslim.nets.preresnet import PreResNet


def slimmed(model, x, ratio=0.5):
    return netslim.slim(model, netslim.select_channels(model, ratio, x), x)


@pytest.fixture(params=["preresnet", "densenet", "resnext"])
def network(request, oracle, images):
    x = images(32)
    model = {
        "preresnet": lambda: PreResNet(11),
        "densenet": lambda: DenseNet(10),
        "resnext": lambda: torchvision.models.resnet.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, groups=4, width_per_group=8
        ),
    }[request.param]()
    return oracle.lively(model, x), x


def test_save_and_load(network, tmp_path):
    dense, x = network
    small = slimmed(dense, x)
    netslim.save(small, tmp_path / "small.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["small.pt"]
    fresh = copy.deepcopy(dense)
    for p in fresh.parameters():
        nn.init.normal_(p)
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    loaded = netslim.load(tmp_path / "small.pt", fresh).eval()
    assert torch.equal(loaded(x), small(x))
    assert all(torch.equal(v, before[k]) for k, v in fresh.state_dict().items())
    for module, twin in zip(small.modules(), loaded.modules(), strict=True):
        assert module.extra_repr() == twin.extra_repr()


def test_plans_compose(network, tmp_path, oracle):
    dense, x = network
    once = slimmed(dense, x, 0.4)
    keep = netslim.select_channels(once, 0.4, x)
    twice = oracle.prove(once, keep, x)
    assert sum(p.numel() for p in twice.parameters()) < sum(p.numel() for p in once.parameters())
    netslim.save(twice, tmp_path / "twice.pt")
    assert torch.equal(netslim.load(tmp_path / "twice.pt", dense)(x), twice(x))
    with pytest.raises(ValueError, match="another architecture"):
        netslim.load(tmp_path / "twice.pt", once)


def test_deepcopy_and_pickle_carry_the_plan(network, tmp_path):
    dense, x = network
    small = slimmed(dense, x)
    for twin in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(twin(x), small(x))
        netslim.save(twin, tmp_path / "twin.pt")
        assert torch.equal(netslim.load(tmp_path / "twin.pt", dense)(x), small(x))


def test_another_architecture_is_refused(tmp_path):
    x = torch.randn(1, 3, 32, 32)
    model = torchvision.models.resnet18(num_classes=10)
    netslim.save(slimmed(model, x), tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"layer1.2 is missing in the file, BasicBlock in dense_model"):
        netslim.load(tmp_path / "small.pt", torchvision.models.resnet34(num_classes=10))
    with pytest.raises(ValueError, match=r"fc.weight is shape \(10, 512\) in the file, shape \(7, 512\) in dense"):
        netslim.load(tmp_path / "small.pt", torchvision.models.resnet18(num_classes=7))
    strided = torchvision.models.resnet18(num_classes=10)
    strided.layer4[0].conv1.stride = (1, 1)
    with pytest.raises(ValueError, match=r"layer4.0.conv1 is .* stride \(2, 2\)"):
        netslim.load(tmp_path / "small.pt", strided)


def test_files_without_an_entry_about_scattering_load(network, tmp_path):
    dense, x = network
    small = slimmed(dense, x)
    netslim.save(small, tmp_path / "small.pt")
    content = torch.load(tmp_path / "small.pt", weights_only=True)
    plan = json.loads(content["plan"])
    for step in plan["passes"]:
        assert step.pop("scatter") == {}
    torch.save({**content, "plan": json.dumps(plan)}, tmp_path / "old.pt")
    assert torch.equal(netslim.load(tmp_path / "old.pt", dense)(x), small(x))


def test_files_of_others_are_refused(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not written by netslim"):
        netslim.load(tmp_path / "other.pt", nn.Linear(1, 1))


def test_a_dense_network_has_no_plan(tmp_path):
    with pytest.raises(ValueError, match="not a result of netslim"):
        netslim.save(nn.Linear(1, 1), tmp_path / "dense.pt")
    assert not list(tmp_path.iterdir())
