"""Oracle: bins counted by hand; PNG headers read byte by byte."""

from __future__ import annotations

import struct

import numpy as np

from netslim.report import figures
from netslim.report.results import MeanStd


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_bins_are_common_to_all_networks_and_end_at_the_largest_scale() -> None:
    edges = figures.bins([[0.1, 0.4], [0.8, 0.2]], number=4)
    np.testing.assert_allclose(edges, [0.0, 0.2, 0.4, 0.6, 0.8])


def test_counts_per_bin_by_hand() -> None:
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    found = figures.counts([[0.0, 0.5, 1.0, 2.5, 3.0], [1.5, 1.75, float("nan")]], edges)
    # A value on an edge belongs to the bin on its right, the last edge to the last bin; nan to none.
    assert found.tolist() == [[2, 1, 2], [0, 2, 0]]


def test_bins_exist_when_every_scale_is_zero_or_none_is_finite() -> None:
    assert figures.bins([[0.0, 0.0]], number=2).tolist() == [0.0, 0.5, 1.0]
    assert figures.bins([[float("nan")]], number=2).tolist() == [0.0, 0.5, 1.0]


def test_styles_tell_every_strength_by_colour_line_and_marker() -> None:
    looks = [figures.style(i, 5) for i in range(5)]
    for key in ("color", "linestyle", "marker"):
        assert len({str(look[key]) for look in looks}) == 5
    # WCAG's relative luminance: in grey print too, a larger λ is lighter, and the lightest still stands out from white.
    colours = np.array([look["color"][:3] for look in looks])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0.02).all()
    assert 1.05 / (luminance[-1] + 0.05) >= 3.0


def test_figures_are_twice_the_size_they_are_shown_at() -> None:
    line = ([1, 2], [MeanStd(0.1, None, 1), MeanStd(0.2, None, 1)])
    width, height = size(figures.curves({"": {0.0: line}}, ylabel="accuracy, %"))
    assert abs(width - figures.WIDTH * 200) <= 1
    assert 500 < height < width


def test_a_figure_is_the_same_bytes_when_drawn_again() -> None:
    line = ([1, 2], [MeanStd(0.1, 0.01, 3), MeanStd(0.2, 0.02, 3)])
    first, second = (figures.curves({"": {0.0: line, 1e-4: line}}, ylabel="accuracy, %") for _ in range(2))
    assert first == second


def test_one_epoch_many_strengths_and_many_layers_are_drawn() -> None:
    ones = {10.0**-k: ([1], [MeanStd(0.5, None, 1)]) for k in range(9)}
    size(figures.curves({"a": ones, "b": ones, "c": {}}, ylabel="accuracy, %"))
    size(figures.kept([f"layer{i}.bn" for i in range(163)], [16] * 163, {"90 %": {0.0: [8.0] * 163}}))
