"""A Document as Markdown, with the figures as links into figures/. Everything from a record is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from netslim.report.render.document import Document
from netslim.report.render.page import TEMPLATES


def render(document: Document) -> str:
    """The whole report as text."""
    # finalize sees every value before autoescape does, which lets Markup through: all that a template prints is
    # escaped for Markdown, once.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=escape
    )
    environment.filters |= {"fence": fence, "row": row}
    return environment.get_template("report.md").render(document=document) + "\n"


def escape(text: str) -> Markup:
    r"""Text that Markdown shows as it is; Markup is left alone.

    >>> print(escape("a|b *c* <d>"))
    a\|b \*c\* &lt;d>
    """
    if isinstance(text, Markup):
        return text
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return Markup(re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(text.splitlines()) or text))


def fence(lines: Sequence[str]) -> Markup:
    """Backticks that no line among these can end.

    >>> print(fence(["a", "```"]))
    ````
    """
    runs = [len(run) for line in lines for run in re.findall("`+", line)]
    return Markup("`" * max(3, 1 + max(runs, default=0)))


def row(cells: Sequence[str]) -> Markup:
    r"""Cells as one row of a table.

    >>> print(row(["a|b", "c"]))
    | a\|b | c |
    """
    return Markup("| {} |").format(Markup(" | ").join(map(escape, cells)))
