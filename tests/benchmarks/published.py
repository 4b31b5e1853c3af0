"""Write the tables of outputs/published/README.md anew from the records beside it.

    python tests/benchmarks/published.py

A table stands between two comments, ``<!-- table benchmark/slim_speed.md 1 -->`` (the first table of that record) or
``<!-- table paper -->`` (what ``python -m netslim.report.paper`` prints), and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from pathlib import Path

from netslim import files
from netslim.report import paper

PUBLISHED = Path(__file__).parents[2] / "outputs" / "published"
BLOCK = re.compile(r"(<!-- table (\S+) ?(\d*) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables(text: str) -> list[str]:
    """The Markdown tables of a text, in their order.

    >>> tables("a\\n\\n| x |\\n| - |\\n\\nb\\n\\n| y |")
    ['| x |\\n| - |', '| y |']
    """
    return [found.strip() for found in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)]


def table(source: str, number: str) -> str:
    if source == "paper":
        return paper.table(PUBLISHED)
    if not (PUBLISHED / source).exists():
        return "Not run yet."
    return tables((PUBLISHED / source).read_text())[int(number) - 1]


def render(page: str) -> str:
    """The page with every table as its record has it now."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{table(found[2], found[3])}\n\n{found[4]}", page)


if __name__ == "__main__":
    readme = PUBLISHED / "README.md"
    files.write_text(readme, render(readme.read_text()))
