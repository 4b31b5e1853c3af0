"""Oracle: bins counted by hand; sizes and boxes as matplotlib measures them; colours by WCAG's formula."""

from __future__ import annotations

import itertools
import re
import struct

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from netslim.report.figures import accuracy, canvas, channels, curves, gamma, gamma_history, palette
from netslim.report.figures.curves import Panel
from netslim.report.render import images
from netslim.report.results import STAGES, MeanStd


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_bins_are_common_to_all_networks_and_end_at_the_largest_scale() -> None:
    edges = gamma.bins([[0.1, 0.4], [0.8, 0.2]], number=4)
    np.testing.assert_allclose(edges, [0.0, 0.2, 0.4, 0.6, 0.8])


def test_counts_per_bin_by_hand() -> None:
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    found = gamma.counts([[0.0, 0.5, 1.0, 2.5, 3.0], [1.5, 1.75, float("nan")]], edges)
    # A value on an edge belongs to the bin on its right, the last edge to the last bin; nan to none.
    assert found.tolist() == [[2, 1, 2], [0, 2, 0]]


def test_bins_exist_when_every_scale_is_zero_or_none_is_finite() -> None:
    assert gamma.bins([[0.0, 0.0]], number=2).tolist() == [0.0, 0.5, 1.0]
    assert gamma.bins([[float("nan")]], number=2).tolist() == [0.0, 0.5, 1.0]


def test_small_scales_are_in_the_first_bin_of_the_logarithmic_axis() -> None:
    edges = gamma.log_bins([[0.0, 1.0]], number=4)
    np.testing.assert_allclose(edges, [1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert gamma.counts([[0.0, 1e-9, 5e-4, 0.5, 1.0]], edges).tolist() == [[3, 0, 0, 2]]


def luminance(colours: list[str]) -> np.ndarray:
    """WCAG's relative luminance."""
    table = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_styles_tell_every_strength_by_colour_line_and_marker() -> None:
    looks = [palette.series(i, 5) for i in range(5)]
    for key in ("color", "linestyle", "marker"):
        assert len({str(look[key]) for look in looks}) == 5
    # In grey print too, a larger λ is lighter, and the lightest still stands out from white.
    light = luminance([look["color"] for look in looks])
    assert (np.diff(light) > 0.02).all()
    assert 1.05 / (light[-1] + 0.05) >= 3.0


@pytest.mark.parametrize("of", [1, 2, 3, 8, 50])
def test_every_line_stands_out_from_the_dark_page_too(of: int) -> None:
    dark = luminance([palette.dark(palette.series(i, of)["color"]) for i in range(of)])
    ground = luminance([palette.dark(palette.GROUND)])
    assert ((dark + 0.05) / (ground + 0.05) >= 4.5).all()


@pytest.mark.parametrize("scheme", [str, palette.dark])
def test_numbers_are_readable_on_every_shade_of_a_heat_map(scheme: type[str]) -> None:
    shades = luminance([scheme(palette.shade(share)) for share in np.linspace(0, 1, 40)]) + 0.05
    ink = luminance([scheme(palette.INK)]) + 0.05
    assert (np.maximum(shades / ink, ink / shades) >= 4.5).all()


ONE = MeanStd(0.1, None, 1)


def panel(strengths: int, epochs: int = 2) -> Panel:
    line = (list(range(1, epochs + 1)), [MeanStd(0.1 + 0.01 * i, 0.01, 3) for i in range(epochs)])
    return Panel("", "accuracy, %", {float(f"{k * 1.25e-4:.4g}"): line for k in range(strengths)}, 100.0)


def test_figures_are_twice_the_size_they_are_shown_at() -> None:
    width, height = size(images.save(curves.curves([panel(1)], columns=1, width=images.WIDE), "png"))
    assert abs(width - images.WIDE * images.DPI) <= 1
    assert 500 < height < width


@pytest.mark.parametrize("format", images.FORMATS)
def test_a_figure_is_the_same_bytes_when_drawn_again(format: str) -> None:
    first, second = (images.save(curves.curves([panel(2)], columns=1, width=3.35), format) for _ in range(2))
    assert first == second


def all_figures(strengths: int, width: float) -> list[Figure]:
    """Every figure with that many λ."""
    values = [float(f"{k * 1.25e-4:.4g}") for k in range(strengths)]
    edges = gamma.bins([[0.1, 1.0]])
    row = gamma.Row(0.0, np.ones((1, 50)), np.ones((1, 50)), {0.5: 0.2, 0.7: 0.3, 0.9: 0.4, 0.95: 0.8})
    paths = [
        accuracy.Path(f"network, λ = {v:g}", [accuracy.Point(2e7, 4e8, ONE), accuracy.Point(1e6, 1e7, ONE)])
        for v in values
    ]
    maps = {value: (range(1, 161), np.arange(160 * 29).reshape(160, 29)) for value in values[:6]}
    kept = {ratio: {value: [8.0] * 163 for value in values} for ratio in (0.5, 0.9)}
    stages = {value: dict.fromkeys(STAGES, ONE) for value in values}
    ratios = {stage: {value: {0.0: ONE, 0.5: ONE} for value in values} for stage in STAGES[1:]}
    scale = {"metric": "accuracy, %", "scale": 100.0, "width": width}
    return [
        curves.curves([panel(strengths)], columns=2, width=width),
        gamma.distributions([row] * strengths, edges, gamma.log_bins([[1.0]]), width=width),
        gamma_history.over_epochs(maps, width=width),
        channels.kept([f"layer{i}.bn" for i in range(163)], [16] * 163, kept, width=width),
        accuracy.stages(stages, **scale),
        accuracy.ratios(ratios, **scale),
        accuracy.cost(paths, **scale),
    ]


@pytest.mark.parametrize(
    ("strengths", "width"), [(1, images.WIDE), (4, 3.35), (4, images.WIDE), (50, images.NARROW), (50, images.WIDE)]
)
def test_nothing_leaves_the_picture(strengths: int, width: float) -> None:
    for figure in all_figures(strengths, width):
        boxes = [legend.get_window_extent() for legend in figure.legends]
        for ax in figure.axes:
            boxes += [ax.get_tightbbox()]
        for box in boxes:
            assert box.x0 >= -1
            assert box.y0 >= -1
            assert box.x1 <= figure.bbox.x1 + 1
            assert box.y1 <= figure.bbox.y1 + 1


@pytest.mark.parametrize("of", ["channels", "MACs"])
def test_the_titles_of_panels_side_by_side_do_not_touch(of: str) -> None:
    panels = {ratio: {0.0: [8.0], 1e-4: [4.0]} for ratio in (0.3, 0.5, 0.75, 0.9, 0.95)}
    figure = channels.kept(["features.1"], [16], panels, of=of, width=images.WIDE)
    titles = [text for text in figure.findobj(Text) if text.get_text().endswith("removed")]
    places = [title.get_window_extent() for title in titles]
    assert len(places) == 5
    assert not any(a.overlaps(b) for a, b in itertools.combinations(places, 2))
    assert max(place.x1 for place in places) <= figure.bbox.x1


def test_of_fifty_lambdas_the_legend_names_some_and_the_last() -> None:
    figure = curves.curves([panel(50)], columns=1, width=images.WIDE)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) <= canvas.MOST
    assert names[0] == "λ = 0"
    assert names[-1] == "λ = 6.125e-3"


def test_numbers_in_words_are_whole_and_those_of_places_are_not() -> None:
    svg = images.inline(titled("λ = 6.125e-3"), "a figure")
    assert ">λ = 6.125e-3<" in svg
    assert not re.search(r' d="[^"]*\.\d\d\d', svg)


def titled(title: str) -> Figure:
    figure = Figure(figsize=(2, 2))
    figure.subplots().set_title(title)
    return figure


def test_one_epoch_is_a_dot() -> None:
    figure = curves.curves([panel(2, epochs=1)], columns=1, width=images.WIDE)
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o", "s"]
    assert all(line.get_markevery() in (None, (0, 1)) for line in figure.axes[0].lines)


def curve(values: list[float]) -> Panel:
    return Panel("", "", {0.0: (list(range(1, len(values) + 1)), [MeanStd(value, None, 1) for value in values])})


def test_the_last_quarter_is_shown_by_itself_unless_one_image_is_a_step() -> None:
    fine = curves.last_quarter(curve([0.5 + 0.0001 * (i * i % 97) for i in range(200)]))
    assert fine is not None
    assert fine.title == "from epoch 150"
    assert fine.curves[0.0][0] == list(range(150, 201))
    coarse = curve([round(0.9 + 0.001 * (i % 7), 2) + 1 / 364 * (i % 3) for i in range(200)])
    assert curves.last_quarter(coarse) is None
    assert curves.last_quarter(curve([0.1] * 11)) is None
