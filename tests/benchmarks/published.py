"""Write the tables of outputs/published/README.md anew from the records beside it, and README.md's first picture.

    python tests/benchmarks/published.py                                    the pages, from what is published
    python tests/benchmarks/published.py outputs/high_ratio_digits ...      publish the records of these sweeps first

A table stands between two comments, ``<!-- table benchmark/slim_speed.md 1 -->`` (the first table of that record) or
``<!-- table paper -->`` (what ``python -m netslim.report.paper`` prints), and ``<!-- end -->``; the picture between
``<!-- headline high_ratio_digits -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import evidence

from netslim import files
from netslim.report import paper

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "outputs" / "published"
BLOCK = re.compile(r"(<!-- table (\S+) ?(\d*) -->\n).*?(<!-- end -->)", re.DOTALL)
FIRST = re.compile(r"(<!-- headline (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


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


def first_page(page: str) -> str:
    """README.md with the picture of the sweep that it names; as it is until that is published."""

    def shown(found: re.Match[str]) -> str:
        text = PUBLISHED / found[2] / evidence.HEADLINE
        return f"{found[1]}{text.read_text() if text.exists() else found[3]}{found[4]}"

    return FIRST.sub(shown, page)


if __name__ == "__main__":
    for sweep in map(Path, sys.argv[1:]):
        evidence.publish(sweep, PUBLISHED / sweep.name)
    for readme, write in ((PUBLISHED / "README.md", render), (ROOT / "README.md", first_page)):
        files.write_text(readme, write(readme.read_text()))
