"""Costs against numbers from the literature and by hand."""

import pytest
import torch
from torch import nn

from netslim.measure.cost import Cost, count
from netslim.nets.densenet import DenseNet
from netslim.nets.preresnet import PreResNet
from netslim.nets.vgg import LAYERS, VGG


@pytest.mark.parametrize(
    ("model", "params", "mega_macs"),
    [
        (lambda: VGG(LAYERS[19]), 20_035_018, 398.1),
        (lambda: PreResNet(164), 1_703_258, 247.6),
        (lambda: DenseNet(40), 1_059_298, 282.9),
    ],
)
def test_networks_of_the_paper(model, params, mega_macs):
    cost = count(model(), torch.randn(1, 3, 32, 32))
    assert cost.params == params
    assert round(cost.macs / 1e6, 1) == mega_macs
    assert cost.uncounted == {}


def test_by_hand():
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2, padding=1),  # 8·6·6 outputs of 2·3·3
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # 8·6·6 inputs, each times 4·2·2
        nn.Flatten(),
        nn.Linear(4 * 12 * 12, 5),
    )
    macs = 8 * 36 * 18 + 8 * 36 * 16 + 576 * 5
    assert count(model, torch.randn(1, 4, 6, 6)).macs == macs
    assert count(model, torch.randn(3, 4, 6, 6)).macs == 3 * macs


def test_matrix_products_and_attention():
    class Attention(nn.Module):
        def forward(self, q, k, v):
            return nn.functional.scaled_dot_product_attention(q, k, v) + (q @ k.transpose(-1, -2)) @ v

    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    assert count(Attention(), (q, k, v)) == Cost(0, 2 * (2 * 3 * 5 * 7 * 8 * 2), {})


def test_what_is_not_counted_is_said():
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real

    assert count(Spectrum(), torch.randn(2, 8)).uncounted == {"_fft_r2c": 1}


def test_shared_parameters_count_once_and_the_model_is_untouched():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.BatchNorm1d(4), layer).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert count(model, torch.randn(2, 4)) == Cost(20 + 8, 2 * 2 * 16, {})
    assert all(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_wrong_input():
    with pytest.raises(ValueError, match="does not run on the example input"):
        count(nn.Linear(4, 4), torch.randn(2, 5))
