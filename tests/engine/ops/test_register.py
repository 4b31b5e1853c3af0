"""Operations from outside, made with torch.library. Oracle: the masked network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import netslim
from netslim.engine import OpRule, register
from netslim.engine.ops import arithmetic
from netslim.engine.ops.table import TABLE


@torch.library.custom_op("netslim_tests::soft_clip", mutates_args=())
def soft_clip(x: Tensor, limit: float) -> Tensor:
    return x / (1 + x.abs() / limit)


@soft_clip.register_fake
def _(x: Tensor, limit: float) -> Tensor:
    return torch.empty_like(x)


class Clip(nn.Module):
    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        return soft_clip(x, self.limit or x.shape[1] / 2)


@pytest.fixture
def rows() -> Iterator[None]:
    before = dict(TABLE)
    yield
    TABLE.clear()
    TABLE.update(before)


def network(limit: float = 3.0) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Clip(limit), nn.Conv2d(8, 4, 3))
    nn.init.uniform_(model[1].weight, 0.1, 1.0)
    nn.init.normal_(model[1].bias)
    return model.double().eval()


X = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
RULE = OpRule(arithmetic.pointwise, sizes_from_inputs=True, keeps_numbers=True)


def kept_equal(model: nn.Module, keep: netslim.Selection) -> nn.Module:
    small = netslim.slim(model, keep, X)
    torch.testing.assert_close(small(X), netslim.mask(model, keep)(X), rtol=1e-9, atol=1e-12)
    return small


def test_without_a_row_an_operation_is_a_barrier() -> None:
    with pytest.raises(ValueError, match="no BatchNorm layer of Sequential can lose channels"):
        netslim.select_channels(network(), 0.5, X)


def test_with_a_row_it_is_followed(rows: None) -> None:
    register("netslim_tests::soft_clip", RULE)
    model = network()
    small = kept_equal(model, netslim.select_channels(model, 0.5, X))
    assert small[0].out_channels == small[3].in_channels == 4


def test_a_number_made_from_the_width_holds_the_channels(rows: None) -> None:
    register("netslim_tests::soft_clip", RULE)
    model = network(limit=0.0)  # x.shape[1] / 2: 4 in the dense network, 2 in a slim one
    with pytest.raises(ValueError, match="can lose channels"):
        netslim.select_channels(model, 0.5, X)


def test_its_multiply_adds_are_counted(rows: None) -> None:
    plain = netslim.count(network(), X)
    register("netslim_tests::soft_clip", OpRule(arithmetic.pointwise, macs=lambda tape, node: 1000))
    assert netslim.count(network(), X).macs == plain.macs + 1000
    register("netslim_tests::soft_clip", OpRule(arithmetic.pointwise, macs=None))
    assert netslim.count(network(), X).uncounted == {"netslim_tests::soft_clip": 1}


def test_its_shortcut_is_used_on_the_meta_device(rows: None) -> None:
    seen = []

    def shape(x: Tensor, limit: float) -> Tensor:
        seen.append(tuple(x.shape))
        return torch.empty_like(x)

    register("netslim_tests::soft_clip", OpRule(arithmetic.pointwise, sizes_from_inputs=True, meta=shape))
    model = network()
    kept_equal(model, netslim.select_channels(model, 0.5, X))
    assert set(seen) == {(2, 8, 6, 6), (2, 4, 6, 6)}  # the dense network's recording, the slim one's


def test_an_operation_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no operation 'mine::nothing': define it with torch\.library"):
        register("mine::nothing", RULE)


def test_the_example_of_the_readme_runs() -> None:
    page = Path(__file__).parents[3] / "src" / "netslim" / "engine" / "README.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    before = dict(TABLE)
    exec(code.replace("print(small[0])", "assert small[0].out_channels == 4"), {})
    TABLE.clear()
    TABLE.update(before)
