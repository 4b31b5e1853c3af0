"""γ over training as a heat map. Oracle: histograms counted by hand, cells of the figure by their place and colour."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch

from netslim import report
from netslim.experiment import paths
from netslim.method.scale_bins import BINS, EDGES
from netslim.report.figures import gamma_history, palette
from netslim.report.gamma_history import FILE
from netslim.report.render import images
from netslim.report.results import groups
from netslim.report.sections.scales import distributions

EPOCHS = 3
Make = Callable[..., Path]


def bins(**counts: int) -> list[int]:
    """A histogram: b0=5 puts five γ in the first bin."""
    found = [0] * BINS
    for name, count in counts.items():
        found[int(name.removeprefix("b"))] = count
    return found


HISTORY = [bins(b0=1, b13=3), bins(b12=2, b13=2), bins(b0=3, b28=1)]  # bin 12 is the last under 1e-2


def recorded(folder: Path, pattern: str = "train_*") -> Path:
    """The sweep, whose trainings have a history."""
    for path in folder.glob(f"{pattern}/record.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"gamma_history": HISTORY}))
    return folder


@pytest.fixture
def page(make_sweep: Make) -> Path:
    made = make_sweep(lambdas=(0.0, 1e-5), ratios=(0.5,), epochs=EPOCHS)
    return report.build(recorded(made, "train_lambda=1e-05_*")).parent


def test_of_the_trainings_that_have_a_history_there_is_a_figure_with_its_data(page: Path) -> None:
    text = (page / "report.md").read_text()
    assert (page / "figures" / "gamma-history.png").exists()
    assert "λ = 1e-5: 25.0 % after epoch 1, 75.0 % after epoch 3." in text
    assert "a panel per λ. Share of |γ| under 1e-2. λ = 1e-5: 25.0 %" in (page / "index.html").read_text()
    assert "λ = 0: 25.0 %" not in text
    with (page / "gamma-history.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    cells = [(row["epoch"], float(row["from"]), row["under"] and float(row["under"]), row["count"]) for row in found]
    assert cells == [
        ("1", 0.0, 1e-4, "1"), ("1", 1e-2, EDGES[13], "3"),
        ("2", EDGES[11], 1e-2, "2"), ("2", 1e-2, EDGES[13], "2"),
        ("3", 0.0, 1e-4, "3"), ("3", EDGES[27], "", "1"),
    ]  # fmt: skip
    assert {(row["lambda"], row["seed"]) for row in found} == {("1e-05", "0")}


def test_records_without_a_history_have_no_figure(sweep: Path) -> None:
    assert "gamma-history" not in (sweep / "report" / "index.html").read_text()
    assert not (sweep / "report" / "gamma-history.csv").exists()


def shades(ax: Axes) -> dict[tuple[float, float, float], str]:
    """(from epoch, to epoch, bin) -> colour, of every box of a panel."""
    patches = [patch for patch in ax.get_children() if isinstance(patch, PathPatch)]
    boxes = [(box, to_hex(patch.get_facecolor())) for patch in patches for box in patch.get_path().to_polygons()]
    return {(*box[[0, 2], 0].tolist(), box[0, 1]): colour for box, colour in boxes}


def test_cells_are_where_the_counts_are_and_as_dark_in_every_panel() -> None:
    maps = {0.0: ([1, 2, 3], np.array(HISTORY)), 1e-4: ([1, 2, 3], 100 * np.array(HISTORY))}
    figure = gamma_history.over_epochs(maps, width=images.WIDE)
    first, second = map(shades, figure.axes)
    # By hand: 11 steps of log(1 + count) / log(301), rounded up; 200 and 300 of bin 13 are one box.
    one, two, three, hundred, most = (palette.shade(step / 11) for step in (2, 3, 3, 9, 11))
    assert first == {
        (0.5, 1.5, 0.0): one, (2.5, 3.5, 0.0): three, (1.5, 2.5, 12.0): two, (0.5, 2.5, 13.0): three,
        (2.5, 3.5, 28.0): one,
    }  # fmt: skip
    assert second == {
        (0.5, 1.5, 0.0): hundred, (2.5, 3.5, 0.0): most, (1.5, 2.5, 12.0): most, (0.5, 2.5, 13.0): most,
        (2.5, 3.5, 28.0): hundred,
    }  # fmt: skip


def test_many_epochs_share_columns_and_lambdas_are_limited(make_sweep: Make) -> None:
    counts = np.array([bins(b5=count) for count in [0, 8] * 48 + [4]])
    figure = gamma_history.over_epochs({0.0: (range(1, 98), counts)}, width=images.NARROW)
    # Of 97 epochs three share a column: 0, 8, 0 and 8, 0, 8 in turns, and the last one alone.
    assert sorted(shades(figure.axes[0]))[:2] == [(0.5, 3.5, 5.0), (3.5, 6.5, 5.0)]
    assert max(shades(figure.axes[0])) == (96.5, 97.5, 5.0)
    many = recorded(make_sweep(lambdas=[k * 1e-5 for k in range(9)], ratios=(0.5,), epochs=EPOCHS))
    (group,) = groups(paths.load_jobs(many))
    (picture,) = [block for block in distributions(group)[0].blocks if getattr(block, "data", "") == FILE]
    drawn = picture.draw(width=images.NARROW).axes
    assert [ax.get_title("left") for ax in drawn][:: len(drawn) - 1] == ["λ = 0", "λ = 8e-5"]
    assert len(drawn) == 6


def test_the_page_stays_small_and_takes_its_colours_for_light_and_dark(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(5504, np.full(BINS, 1 / BINS), size=160)
    maps = {strength: (list(range(1, 161)), counts) for strength in (0.0, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4)}
    for width in (images.WIDE, images.NARROW):
        text = images.inline(gamma_history.over_epochs(maps, width=width), "g")
        assert len(text) < 300_000
        assert "<image" not in text
        used = {f"#{code}" for code in re.findall(r"var\(--c([0-9a-f]{6}),", text)}
        assert all(palette.dark(colour) != colour for colour in used)
