"""Targets for multiply-adds and parameters: what the slim network is counted to have."""

import pytest
import torchvision

import netslim


@pytest.fixture
def resnet(images, oracle):
    x = images(32)
    return oracle.lively(torchvision.models.resnet18(num_classes=10), x), x


@pytest.mark.parametrize("coupling", ["keep", "group"])
@pytest.mark.parametrize(("cost", "share"), [("macs", 0.7), ("params", 0.6)])
def test_the_smallest_ratio_that_meets_the_target(resnet, cost, share, coupling):
    def left(kept):
        return getattr(netslim.count(netslim.slim(model, kept, x), x), cost) / getattr(netslim.count(model, x), cost)

    model, x = resnet
    keep = netslim.select_channels(model, example_input=x, coupling=coupling, **{f"target_{cost}": share})
    assert share - 0.01 < left(keep) <= share
    assert left(netslim.select_channels(model, keep.asked - 0.01, x, coupling=coupling)) > share


def test_target_macs_out_of_reach(resnet):
    model, x = resnet
    with pytest.raises(ValueError, match=r"target_macs 0.01 is out of reach: at least 0\.\d+"):
        netslim.select_channels(model, example_input=x, target_macs=0.01)
    with pytest.raises(ValueError, match=r"target_macs must be in \(0, 1\]"):
        netslim.select_channels(model, example_input=x, target_macs=1.5)
    with pytest.raises(ValueError, match="either ratio or target_macs"):
        netslim.select_channels(model, 0.5, x, target_macs=0.5)


@pytest.mark.parametrize(("target", "cost"), [("target_macs", "macs"), ("target_params", "params")])
def test_a_whole_number_is_a_target_too(resnet, target, cost):
    model, x = resnet
    dense = getattr(netslim.count(model, x), cost)
    share = netslim.select_channels(model, example_input=x, **{target: 0.5})
    number = netslim.select_channels(model, example_input=x, **{target: dense // 2})
    assert number.asked == share.asked
    assert getattr(netslim.count(netslim.slim(model, number, x), x), cost) <= dense // 2
    with pytest.raises(ValueError, match=rf"{target} 2 is out of reach: at least \d+ [a-z-]+ stay"):
        netslim.select_channels(model, example_input=x, **{target: 2})


def test_a_target_out_of_reach_is_approached_where_that_is_asked_for(resnet):
    model, x = resnet
    with pytest.raises(ValueError, match="out of reach") as refused:
        netslim.select_channels(model, example_input=x, target_macs=0.01)
    nearest = float(str(refused.value).split("at least ")[1].split()[0])
    keep = netslim.select_channels(model, example_input=x, target_macs=0.01, strict=False)
    assert 1 - keep.delivered["macs"] == pytest.approx(nearest, abs=5e-4)
    assert min(int(kept.sum()) for kept in keep.values()) == 1
