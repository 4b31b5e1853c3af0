"""A Document as Markdown, with the figures as links into figures/. Everything from a record is escaped."""

from __future__ import annotations

import re

from netslim.report.render.document import Block, Document, Lines, Picture, Table, Text


def render(document: Document) -> str:
    """The whole report as text."""
    parts = [f"# {_escape(document.title)}", _escape(document.lead)]
    for section in document.sections:
        parts.append(f"## {_escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text(text, quiet):
            return f"*{_escape(text)}*" if quiet else _escape(text)
        case Lines(lines):
            fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
            return "\n".join([f"{fence}text", *lines, fence])
        case Picture(name, _, alt, caption):
            return f"![{_escape(alt)}](figures/{name})\n\n*{_escape(caption)}*"
        case Table(head, rows, align, caption):
            rule = ["---:" if side == "r" else ":---" for side in align]
            lines = [
                "| " + " | ".join(cells) + " |"
                for cells in ([_escape(c) for c in head], rule, *([_escape(c) for c in r] for r in rows))
            ]
            return "\n".join(lines) + (f"\n\n*{_escape(caption)}*" if caption else "")


def _escape(text: str) -> str:
    r"""Text that Markdown shows as it is.

    >>> print(_escape("a|b *c* <d>"))
    a\|b \*c\* &lt;d>
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(text.splitlines()) or text)
