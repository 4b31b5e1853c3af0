"""The page in a real browser. Oracle: what Chromium lays out and paints."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --hide-scrollbars"
)


def chromium(profile: Path, page: Path, *flags: str) -> str:
    command = [str(CHROMIUM), *FLAGS.split(), f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def painted(profile: Path, page: Path, *flags: str) -> np.ndarray:
    """RGB of the painted page, 0..1, shape (height, width, 3)."""
    shot = profile / "shot.png"
    chromium(profile, page, f"--screenshot={shot}", *flags)
    return matplotlib.image.imread(shot)[..., :3]


def test_the_browser_finds_every_heading(sweep: Path, tmp_path: Path) -> None:
    dom = chromium(tmp_path, sweep / "report" / "index.html", "--dump-dom")
    assert dom.count("<h2>") == 10
    assert dom.count("<img ") == 8


@pytest.mark.parametrize(("scheme", "ground"), [(1, (255, 255, 255)), (0, (20, 23, 26))])
def test_both_schemes_paint_text_and_figures_on_the_ground_of_the_page(
    sweep: Path, tmp_path: Path, scheme: int, ground: tuple[int, int, int]
) -> None:
    page = sweep / "report" / "index.html"
    flags = (f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1000,2200")
    pixels = np.rint(255 * painted(tmp_path, page, *flags)).astype(int)
    far = np.abs(pixels - ground).max(axis=-1)
    # Mostly ground, figures included: an uninverted figure would leave a white card on the dark page.
    assert (far <= 12).mean() > 0.85
    assert 0.01 < (far > 100).mean() < 0.15


def test_a_narrow_window_scrolls_tables_and_figures_not_the_page(sweep: Path, tmp_path: Path) -> None:
    page = tmp_path / "narrow.html"
    frame = (
        f'<iframe id="f" style="width:400px;height:800px" src="{(sweep / "report" / "index.html").as_uri()}"></iframe>'
    )
    measure = (
        "<script>f.onload=()=>{const d=f.contentDocument.documentElement;"
        "document.title=d.scrollWidth+' of '+d.clientWidth}</script>"
    )
    page.write_text(f"<!DOCTYPE html><title>not loaded</title>{frame}{measure}")
    dom = chromium(
        tmp_path / "profile", page, "--dump-dom", "--allow-file-access-from-files", "--virtual-time-budget=5000"
    )
    assert "<title>400 of 400</title>" in dom
