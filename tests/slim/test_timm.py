"""slim == masked on networks of timm (an extra): splits, stacked branches, dense paths, attention gates."""

import pytest

import netslim

timm = pytest.importorskip("timm")

FAMILIES = [
    *("res2net50_26w_4s", "skresnet18", "cspresnet50", "dpn68", "ghostnet_100", "dla34", "mixnet_s"),
    *("repvgg_a0", "tf_efficientnet_b0"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name, oracle, images):
    x = images(64)
    model = oracle.lively(timm.create_model(name, num_classes=10), x)
    coupling = "group" if name == "repvgg_a0" else "keep"  # each of its streams has three writers
    keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
    # ghostnet's training is chaotic: rounding alone grows to 10 % in three steps
    small = oracle.prove(model, keep, x, train=name != "ghostnet_100")
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
