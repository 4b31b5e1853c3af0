"""slim == masked on networks of timm (an extra): splits, stacked branches, dense paths, gates, attention."""

import pytest

import netslim

timm = pytest.importorskip("timm")

FAMILIES = [
    "cs3darknet_s", "cspresnet50", "gcresnext26ts", "darknet17", "densenet121", "dla34", "dpn68", "ecaresnet26t",
    "efficientnet_lite0", "efficientvit_b0", "efficientvit_m0", "ese_vovnet19b_dw", "fasternet_t0",
    "fastvit_t8", "fbnetc_100", "gernet_s", "ghostnet_100", "ghostnetv2_100", "hardcorenas_a", "hgnet_tiny",
    "hgnetv2_b0", "hrnet_w18_small", "lcnet_050", "legacy_seresnet18", "levit_128s", "mixnet_s",
    "mnasnet_small", "mobilenetv3_small_050", "mobilenetv4_conv_small", "mobilevit_xxs", "mobilevitv2_050",
    "regnety_002", "repghostnet_050", "repvgg_a0", "repvit_m0_9", "res2net50_26w_4s", "resnest14d",
    "resnetblur18", "rexnet_100", "selecsls42", "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_xs",
    "tf_efficientnet_b0", "tinynet_e",
]  # fmt: skip
# 64 unless the network is made for one size, or 2x2 pixels are left in the end and training magnifies rounding
SIZES = {"efficientvit_b0": 96, "efficientvit_m0": 224, "levit_128s": 224, "selecsls42": 96, "shvit_s1": 224}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name, oracle, images):
    x = images(SIZES.get(name, 64))
    model = oracle.lively(timm.create_model(name, num_classes=10), x)
    coupling = "group" if name == "repvgg_a0" else "keep"  # each of its streams has three writers
    keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
    small = oracle.prove(model, keep, x)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    parts = netslim.select_channels(model, 0.5, x, coupling="scatter")
    assert parts.prunable >= keep.prunable or coupling == "group"
    oracle.prove(model, parts, x, train=False)
