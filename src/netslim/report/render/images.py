"""Figures as files, and as SVG inside the page with the page's own colours."""

from __future__ import annotations

import gc
import io
import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backend_bases import get_registered_canvas_class
from matplotlib.figure import Figure

from netslim.report.figures import canvas
from netslim.report.render.document import Picture

WIDE, NARROW = 8.2, 3.6  # inches: on a desk and on paper, and on a phone
DPI = 200
FORMATS = ("pdf", "png", "svg")
OPTIONS: dict[str, Any] = {
    "pdf": {"metadata": {"CreationDate": None}},
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 1, "compress_type": zlib.Z_RLE}},  # fast
    "svg": {"metadata": {"Date": None, "Creator": None}},
}
logging.getLogger("fontTools").setLevel(logging.WARNING)  # else a line per table of a font that goes into a PDF


@dataclass(frozen=True)
class Image:
    """A picture for the page: drawn at two widths, of which the style sheet shows one, and as PNG for report.md."""

    wide: Markup
    narrow: Markup
    png: bytes

    @property
    def colours(self) -> set[str]:
        """What the SVG takes from the page, as #rrggbb."""
        return {f"#{code}" for code in re.findall(r"var\(--c([0-9a-f]{6}),", self.wide + self.narrow)}


@contextmanager
def garbage_later() -> Iterator[None]:
    """No search for garbage meanwhile: a figure is many thousand objects in cycles, and all of them live."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@garbage_later()
def image(picture: Picture) -> Image:
    wide = picture.draw(width=WIDE)
    return Image(
        inline(wide, picture.name), inline(picture.draw(width=NARROW), f"{picture.name} narrow"), save(wide, "png")
    )


def inline(figure: Figure, salt: str) -> Markup:
    """An `<svg>` without size, whose colours are variables of the page: #1c2024 is ``var(--c1c2024, #1c2024)``.

    Args:
        salt: makes the identifiers inside unlike those of the other figures of the page.
    """
    text = save(figure, "svg", salt=salt).decode()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    head, body = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    body = re.sub(r"(fill|stroke): #([0-9a-f]{6})", r"\1: var(--c\2, #\2)", body)
    body = re.sub(r">[^<>\n]+<", lambda label: label[0].replace(".", "\0"), body)  # numbers in words stay whole
    body = re.sub(r"(?<=\.\d\d)\d+", "", body).replace("\0", ".")  # a hundredth of a point
    return Markup(re.sub(r"\n\s*", "\n", f"{head}>{body}").strip())  # matplotlib has escaped the text in it


def save(figure: Figure, format: str, *, salt: str = "netslim") -> bytes:
    """A figure as a file of one of FORMATS: no time, no random identifier; text stays text."""
    canvas_of = get_registered_canvas_class(format)(figure)  # imported when a format is first asked for
    buffer = io.BytesIO()
    figure.dpi = DPI
    with (
        canvas.style(figure.get_figwidth()),
        rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "pdf.fonttype": 42}),
    ):
        # not savefig, which draws a figure twice
        getattr(canvas_of, f"print_{format}")(buffer, **OPTIONS[format])
    return buffer.getvalue()
