"""Histograms of |γ|. Oracle: numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from netslim.method.scale_bins import BINS, EDGES, bins_under
from netslim.method.scales import histogram


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_counts_are_those_of_numpy_with_open_ends(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = [torch.randn(50).mul(scale).to(kind) for scale in (1e-5, 1e-3, 0.3, 10.0)]
    layers += [torch.zeros(3, dtype=kind), -torch.ones(2, dtype=kind)]
    sizes = np.abs(np.concatenate([layer.double().numpy() for layer in layers]))
    assert histogram(layers) == np.histogram(sizes, [0.0, *EDGES, np.inf])[0].tolist()


def test_an_edge_belongs_to_the_bin_above_it() -> None:
    counts = histogram([torch.tensor([1.0]), torch.tensor([0.01], dtype=torch.float64)])
    assert (counts[bins_under(1.0)], counts[bins_under(1e-2)]) == (1, 1)
    assert (EDGES[0], EDGES[-1]) == (1e-4, pytest.approx(10**0.5))


def test_a_network_without_scales_has_an_empty_histogram() -> None:
    assert histogram([]) == [0] * BINS
