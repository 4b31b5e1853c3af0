"""What a report is made of. Built once, then rendered as HTML (page.py) and as Markdown (markdown.py).

A block is shown by the macro of its ``kind`` in templates/blocks.html and templates/blocks.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph; ``quiet`` for remarks such as where the paper says it."""

    kind: ClassVar[str] = "text"
    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Points:
    """Sentences that are read one by one."""

    kind: ClassVar[str] = "points"
    items: list[str]


PHONE, COLUMNS = 40, 6  # letters, and columns, that stand side by side on a phone


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Args:
        align: one letter per column: l(eft), r(ight), or w for text on the left that may run over several lines.
        grouped: draw a line where the first column changes.
    """

    kind: ClassVar[str] = "table"
    head: list[str]
    rows: list[list[str]]
    align: str
    caption: str
    grouped: bool = False

    @property
    def look(self) -> str:
        """few: it would be torn apart at the full width of the page; cards: too wide for a phone, where every row
        becomes a list of its cells."""
        letters = sum(max(map(len, column), default=0) for column in zip(*self.rows, strict=True))
        if (letters > PHONE and len(self.align) > 2) or len(self.align) > COLUMNS:
            return "cards"
        return "few" if len(self.align) <= 3 and "w" not in self.align else ""


@dataclass(frozen=True)
class Lines:
    """Preformatted lines: commands, and the lab's `Test set:` lines."""

    kind: ClassVar[str] = "lines"
    lines: list[str]


@dataclass(frozen=True)
class Picture:
    """A figure; ``name`` is that of its files under figures/, without their ending.

    Args:
        draw: draws it, ``draw(width=8.2)`` with the width in inches.
        alt: says in words what it shows.
        data: the file with the numbers in it, beside the page; "" for a drawing.
    """

    kind: ClassVar[str] = "picture"
    name: str
    draw: Callable[..., Figure]
    alt: str
    caption: str
    data: str


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that opens them; on paper they are open."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence[Block]


Block = Text | Points | Table | Lines | Picture | Fold


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]

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
        return [picture for section in self.sections for picture in _pictures(section.blocks)]


def _pictures(blocks: Sequence[Block]) -> Iterator[Picture]:
    for block in blocks:
        if isinstance(block, Fold):
            yield from _pictures(block.blocks)
        elif isinstance(block, Picture):
            yield block


def slug(text: str) -> str:
    """Lower-case ASCII words joined by hyphens, λ and % spelled out."""
    spelled = text.lower().replace("λ", "lambda").replace("%", "percent")
    return re.sub(r"[^a-z0-9.]+", "-", spelled).strip("-")
