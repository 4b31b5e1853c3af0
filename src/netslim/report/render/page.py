"""A Document as one HTML file: no script, no network. Everything from a record is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from netslim.report.figures import palette
from netslim.report.render.document import Document
from netslim.report.render.images import Image

TEMPLATES = Path(__file__).with_name("templates")


def render(document: Document, images: Mapping[str, Image]) -> str:
    """The whole page as text; ``images``: of every picture of the document, by its name."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"words": words, "any": any}
    used = sorted({colour for image in images.values() for colour in image.colours})
    dark = {colour: palette.dark(colour) for colour in used}
    return environment.get_template("page.html").render(document=document, images=images, dark=dark) + "\n"


def words(text: str) -> Markup:
    """Escaped text in which |γ|, λ = 1e-4, n = 3 and 50 ± 1 % are not torn at the end of a line.

    >>> print(words("<λ = 1e-4>"))
    &lt;<span class="together">λ = 1e-4</span>&gt;
    """
    together = re.sub(r"(?<=\d) (?=[±%])|(?<=±) (?=\d)", "\u00a0", str(escape(text)))
    return Markup(re.sub(r"\|γ\||\b[λn] = [\d.e-]*\d", r'<span class="together">\g<0></span>', together))
