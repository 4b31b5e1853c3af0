"""The page in a real browser. Oracle: what Chromium lays out and paints."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from netslim.report.__main__ import main

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
    assert dom.count("<h2>") == 9
    assert dom.count("<svg ") == 2 * 8


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


MEASURE = """
f.onload = () => {
  const d = f.contentDocument, all = [...d.body.querySelectorAll("*")].filter(e => !e.closest("svg"));
  const seen = all.filter(e => e.checkVisibility() && e.getBoundingClientRect().width);
  const name = e => e.tagName + "." + e.className + " " + e.textContent.slice(0, 30);
  const cut = seen.filter(e => e.getBoundingClientRect().right > WIDTH || e.scrollWidth > e.clientWidth + 1 &&
    getComputedStyle(e).display != "inline").map(name);
  const drawn = [...d.querySelectorAll("svg")].filter(e => e.checkVisibility());
  const sizes = drawn.map(e => e.getBoundingClientRect());
  const letters = drawn.flatMap(e => [...e.querySelectorAll("text")].map(t => t.getBoundingClientRect().height));
  document.title = JSON.stringify({cut, page: d.documentElement.scrollWidth, drawn: sizes.length,
    empty: sizes.filter(r => r.width < 200 || r.height < 40).length, smallest: Math.min(...letters),
    first: d.querySelector("th").textContent, opened: [...d.querySelectorAll("details")].length});
}
"""


def measured(page: Path, folder: Path, width: int) -> dict[str, Any]:
    """What a browser with a window of that width lays out, the folded parts opened."""
    opened = page.with_name("opened.html")
    opened.write_text(page.read_text().replace("<details>", "<details open>"))
    frame = f'<iframe id="f" style="border:0;width:{width}px;height:800px" src="{opened.as_uri()}"></iframe>'
    around = folder / "around.html"
    script = MEASURE.replace("WIDTH", str(width))
    around.write_text(f"<!DOCTYPE html><title>not loaded</title>{frame}<script>{script}</script>")
    flags = ("--dump-dom", "--allow-file-access-from-files", "--virtual-time-budget=5000")
    title = chromium(folder / "profile", around, *flags).split("<title>")[1].split("</title>")[0]
    opened.unlink()
    found: dict[str, Any] = json.loads(html.unescape(title))
    return found


@pytest.mark.parametrize("width", [390, 820, 1400])
def test_nothing_is_cut_off_at_any_width_and_the_result_comes_first(sweep: Path, tmp_path: Path, width: int) -> None:
    found = measured(sweep / "report" / "index.html", tmp_path, width)
    assert found["cut"] == []
    assert found["page"] == width
    assert (found["drawn"], found["empty"]) == (8, 0)  # one of the two of every figure
    assert found["smallest"] >= 8  # pixels of the smallest letters in a figure
    assert found["first"] == "after fine-tuning"


def printed(profile: Path, page: Path, *flags: str) -> bytes:
    target = profile.with_suffix(".pdf")
    paper = ("--no-pdf-header-footer", "--generate-pdf-document-outline", f"--print-to-pdf={target}")
    chromium(profile, page, *paper, *flags)
    return target.read_bytes()


FILL = re.compile(rb"((?:[\d.]+ ){3})rg\n")


def drawing(pdf: bytes) -> list[bytes]:
    """The operators of every stream that draws: text, lines, filled areas."""
    streams = re.findall(rb"/Filter /FlateDecode[^>]*>> stream\n(.*?)\nendstream", pdf, flags=re.DOTALL)
    return [text for stream in streams if b" re\n" in (text := zlib.decompress(stream))]


def test_on_paper_the_page_is_light_and_open_whatever_the_screen_is(sweep: Path, tmp_path: Path) -> None:
    page = sweep / "report" / "index.html"
    light, dark = (
        drawing(printed(tmp_path / f"scheme{scheme}", page, f"--blink-settings=preferredColorScheme={scheme}"))
        for scheme in (1, 0)
    )
    opened = page.with_name("opened.html")
    opened.write_text(page.read_text().replace("<details>", "<details open>"))
    open_ = drawing(printed(tmp_path / "opened", opened))
    opened.unlink()
    assert len(light) > 3
    assert light == dark
    assert light == open_
    fills = {tuple(round(255 * float(part)) for part in found.split()) for found in FILL.findall(b"".join(light))}
    assert (0x1C, 0x20, 0x24) in fills  # the ink
    assert (0x14, 0x17, 0x1A) not in fills  # the ground of the dark page
    # This browser prints in light colours of its own accord; others need to be told.
    schemes = re.findall(r"@media ([^{]*prefers-color-scheme[^{]*)", page.read_text())
    assert set(schemes) == {"screen and (prefers-color-scheme: dark) "}


def test_on_paper_the_lab_takes_eight_pages_and_no_heading_stands_at_the_foot_of_one(
    sweep: Path, tmp_path: Path
) -> None:
    pdf = printed(tmp_path / "profile", sweep / "report" / "index.html")
    assert len(re.findall(rb"/Type /Page\n", pdf)) <= 8
    places = dict(re.findall(rb"/([a-z][\w.-]+) \[\d+ 0 R /XYZ \S+ ([\d.]+)", pdf))  # section -> points above the foot
    assert len(places) == 9
    assert min(map(float, places.values())) > 842 / 4


def test_the_command_prints_it(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--pdf"]) == 0
    pdf = sweep / "report" / "report.pdf"
    assert capsys.readouterr().out == f"{pdf}\n"
    assert pdf.read_bytes().startswith(b"%PDF")
    pdf.unlink()
