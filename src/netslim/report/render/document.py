"""What a report is made of. Built once, then rendered as HTML (page.py) and as Markdown (markdown.py).

A block is shown by the macro of its ``kind`` in templates/blocks.html and templates/blocks.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Text:
    """A paragraph; ``quiet`` for remarks such as where the paper says it."""

    kind: ClassVar[str] = "text"
    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Args:
        align: one letter per column: l(eft), r(ight), or w for text on the left that may run over several lines.
        folded: the words behind which a long table is hidden until it is opened; "" shows it.
        grouped: draw a line where the first column changes.
    """

    kind: ClassVar[str] = "table"
    head: list[str]
    rows: list[list[str]]
    align: str
    caption: str
    folded: str = ""
    grouped: bool = False

    @property
    def narrow(self) -> bool:
        """Whether it would be torn apart at the full width of the page."""
        return len(self.align) <= 3 and "w" not in self.align


@dataclass(frozen=True)
class Lines:
    """Preformatted lines: commands, and the lab's `Test set:` lines."""

    kind: ClassVar[str] = "lines"
    lines: list[str]


@dataclass(frozen=True)
class Picture:
    """A PNG figure; ``name`` is its file name under figures/, ``alt`` says in words what it shows."""

    kind: ClassVar[str] = "picture"
    name: str
    png: bytes
    alt: str
    caption: str


Block = Text | Table | Lines | Picture


@dataclass(frozen=True)
class Section:
    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """The title as an ASCII fragment identifier.

        >>> Section("Scaling Factor Distribution of λ = 1e-4", []).anchor
        'scaling-factor-distribution-of-lambda-1e-4'
        """
        return slug(self.title)


@dataclass(frozen=True)
class Document:
    title: str
    lead: str
    sections: list[Section] = field(default_factory=list)

    @property
    def pictures(self) -> list[Picture]:
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]


def slug(text: str) -> str:
    """Lower-case ASCII words joined by hyphens, λ and % spelled out."""
    spelled = text.lower().replace("λ", "lambda").replace("%", "percent")
    return re.sub(r"[^a-z0-9.]+", "-", spelled).strip("-")
