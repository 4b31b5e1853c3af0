"""Networks of Ultralytics, segmentation_models_pytorch and Transformers, and a RetinaNet's backbone, without weights of
others. Oracle: the masked network, in evaluation and through training steps; ONNX Runtime.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netslim
from netslim.measure.export import export
from tests.engine.networks.libraries import NETWORKS, TITLES, published, random, row

pytestmark = pytest.mark.slow


def test_the_readme_has_a_row_of_each():
    couplings = ["keep", "group", "scatter"]
    assert [*published()] == [(TITLES[name], coupling) for name in NETWORKS for coupling in couplings]


@pytest.mark.parametrize("coupling", ["keep", "group", "scatter"])
@pytest.mark.parametrize("name", NETWORKS)
def test_slim_is_masked(name, coupling, oracle, images):
    x = images(64, n=8 if name == "MobileNetV2" else 2)  # its statistics are of very few pixels
    model = random(name, oracle.lively, x)
    model(x)  # a detector keeps its anchors
    keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
    assert keep.proof.on_meta, "the analysis computed the network"
    assert row(name, coupling, keep) == published()[TITLES[name], coupling]
    oracle.prove(model, keep, x, train=coupling == "scatter")


@pytest.mark.filterwarnings("ignore:The tensor attribute")  # the anchors that a detector keeps
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx(name, tmp_path):
    torch.manual_seed(0)
    model, x = NETWORKS[name]().eval(), torch.randn(1, 3, 64, 64)
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight, 0.5, 1.5)
    small = netslim.slim(model, netslim.select_channels(model, 0.5, x, coupling="scatter"), x)
    (file,) = export(small, x, tmp_path, ["onnx"], tolerance=1e-3)
    assert file.path.exists()
