"""A Table for the terminal."""

from __future__ import annotations

import io
import shutil
import sys

from rich import box, table
from rich.console import Console
from rich.text import Text

from netslim.report.render.document import Table

WIDTH = 120  # columns where the output is no terminal


def render(shown: Table) -> str:
    """The table as lines of text, as wide as the terminal at most; the numbers as they are on the page.

    >>> print(render(Table(["λ", "MACs left"], [["0", "53.2"], ["1e-3", "46.8"]], "lr", "")))
     λ      MACs left
    ──────────────────
     0           53.2
     1e-3        46.8
    """
    made = table.Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name, side in zip(shown.head, shown.align, strict=True):
        made.add_column(Text(name), justify="right" if side == "r" else "left")
    for place, row in enumerate(shown.rows):
        last = shown.grouped and place + 1 < len(shown.rows) and shown.rows[place + 1][0] != row[0]
        made.add_row(*map(Text, row), end_section=last)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    lines = io.StringIO()
    Console(file=lines, width=width, no_color=True).print(made)
    return "\n".join(line.rstrip() for line in lines.getvalue().splitlines())
