"""A Document as one HTML file: no script, no other file, no network. Everything from a record is escaped."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from netslim.report.render.document import Document

TEMPLATES = Path(__file__).with_name("templates")


def render(document: Document) -> str:
    """The whole page as text."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"words": words, "base64": encoded, "any": any}
    return environment.get_template("page.html").render(document=document) + "\n"


def encoded(data: bytes) -> str:
    """Bytes as the text of a data: address."""
    return base64.b64encode(data).decode("ascii")


def words(text: str) -> Markup:
    """Escaped text in which |γ|, λ = 1e-4, n = 3 and 50 ± 1 % are not torn at the end of a line.

    >>> print(words("<λ = 1e-4>"))
    &lt;<span class="together">λ = 1e-4</span>&gt;
    """
    together = re.sub(r"(?<=\d) (?=[±%])|(?<=±) (?=\d)", "\u00a0", str(escape(text)))
    return Markup(re.sub(r"\|γ\||\b[λn] = [\d.e-]*\d", r'<span class="together">\g<0></span>', together))
