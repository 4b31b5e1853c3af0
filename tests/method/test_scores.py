"""Scores that rank channels: |γ| by hand, and two of a user's own through the library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import netslim
from netslim.method.scores import Magnitude, Scores

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    """γ of the first layer are ten times smaller than those of the second."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 2, 3),
    )  # fmt: skip
    model[1].weight.data = torch.tensor([0.01, -0.03, 0.02, 0.04])
    model[4].weight.data = torch.tensor([0.4, 0.1, 0.3, -0.2])
    return model.eval()


class OverTheMean:
    needs_data = False

    def __call__(self, network: nn.Module, batches: Iterable[Any] = (), seed: int = 0) -> Scores:
        sizes = {name: layer.weight.detach().abs() for name, layer in netslim.bn_layers(network).items()}
        return Scores({n: g / g.mean() for n, g in sizes.items()}, {n: g == 0 for n, g in sizes.items()}, "|γ| / mean")


class MeanOutput:
    """How large a layer's outputs are on data."""

    needs_data = True

    def __call__(self, network: nn.Module, batches: Iterable[Any], seed: int = 0) -> Scores:
        found: dict[str, Tensor] = {}
        hooks = [
            layer.register_forward_hook(lambda _, __, out, name=name: found.update({name: out.abs().mean((0, 2, 3))}))
            for name, layer in netslim.bn_layers(network).items()
        ]
        with torch.no_grad():
            for batch in batches:
                network(batch)
        for hook in hooks:
            hook.remove()
        return Scores(found, {name: value == 0 for name, value in found.items()}, "mean |output|")


def kept(keep: netslim.Selection) -> dict[str, list[bool]]:
    return {name: mask.tolist() for name, mask in keep.items()}


def test_magnitude_ranks_over_all_layers() -> None:
    expected = {"1": [False, False, False, True], "4": [True] * 4}  # floor 1 saves the last one of layer 1
    assert kept(netslim.select_channels(network(), 3 / 8, X)) == expected
    assert kept(netslim.select_channels(network(), 3 / 8, X, score=Magnitude())) == expected


def test_another_score_ranks_otherwise() -> None:
    keep = netslim.select_channels(network(), 0.5, X, score=OverTheMean())
    assert kept(keep) == {"1": [False, True, False, True], "4": [True, False, True, False]}  # two of each: by hand
    small = netslim.slim(network(), keep, X)
    torch.testing.assert_close(small(X), netslim.mask(network(), keep)(X))


def test_a_score_that_needs_data_is_called_by_the_user() -> None:
    model = network()
    with pytest.raises(ValueError, match=r"MeanOutput needs data: give what it returns, score=MeanOutput\(\.\.\.\)"):
        netslim.select_channels(model, 0.5, X, score=MeanOutput())
    scores = MeanOutput()(model, [X])
    keep = netslim.select_channels(model, 0.5, X, score=scores)
    ranked = sorted((float(value), name, i) for name, line in scores.value.items() for i, value in enumerate(line))
    lowest = {(name, i) for _, name, i in ranked[:4]}
    removed = {(name, i) for name, mask in kept(keep).items() for i, stays in enumerate(mask) if not stays}
    assert removed == lowest or 3 in {sum(mask) for mask in kept(keep).values()}


def test_a_low_score_is_not_dead() -> None:
    """Channels of score 0 are ranked first; only dead ones are removed alone from a grouped convolution."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 2, 1)
    ).eval()
    value = {"1": torch.tensor([0.0, 3.0, 1.0, 2.0])}
    live = Scores(value, {"1": torch.zeros(4, dtype=torch.bool)}, "test")
    # Of 4 channels 2 can be removed, one of each group; half of them is one channel.
    assert kept(netslim.select_channels(model, 0.5, X, score=live)) == {"1": [True] * 4}
    dead = Scores(value, {"1": torch.tensor([True, False, False, False])}, "test")
    assert kept(netslim.select_channels(model, 0.5, X, score=dead)) == {"1": [False, True, True, True]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1": torch.ones(3)}, r"value of '1' in the scores must be a tensor of numbers of shape \(4,\)"),
        ({"1": torch.tensor([1, 2, 3, float("nan")])}, "the score of '1' holds NaN or infinity"),
        ({"9": torch.ones(4)}, "the scores name '9', which is no BatchNorm layer"),
    ],
)
def test_scores_that_do_not_fit_are_refused(change: dict[str, Tensor], message: str) -> None:
    right = Magnitude()(network())
    wrong = Scores({**right.value, **change}, right.dead, "test")
    with pytest.raises(ValueError, match=message):
        netslim.select_channels(network(), 0.5, X, score=wrong)
