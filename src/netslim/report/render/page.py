"""A Document as one HTML file: no script, no other file, no network. Everything from a record is escaped."""

from __future__ import annotations

import base64
import re
from html import escape

from netslim.report.render.document import Block, Document, Lines, Picture, Section, Table, Text

# In the dark scheme figures are inverted with their hues kept, then blended: their white becomes the page's ground.
CSS = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2024; --quiet: #5b6168; --line: #dfe2e6; --soft: #f5f6f8;
  --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --ink: #e6e8ea; --quiet: #a3aab2; --line: #333940; --soft: #1d2125; --link: #8ab8f0; }
  figure img { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
header, nav, main, footer { width: min(100% - 2rem, 52rem); margin-inline: auto; }
header { margin-block: 3rem 1.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; text-wrap: balance; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3.2rem 0 .6rem; letter-spacing: -.005em; text-wrap: balance; }
h2 a { color: inherit; text-decoration: none; }
h2 a:hover::after { content: " #"; color: var(--quiet); }
p { margin: .6rem 0; }
.lead { font-size: 1.1rem; color: var(--quiet); }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; line-height: 1.5; }
a { color: var(--link); }
nav { font-size: .92rem; border-block: 1px solid var(--line); padding: .8rem 0; }
nav ul { list-style: none; margin: 0; padding: 0; columns: 22rem; column-gap: 2rem; }
nav a { display: block; padding: .16rem 0; color: var(--quiet); text-decoration: none; }
nav a:hover { color: var(--ink); text-decoration: underline; }
figure { margin: 1.4rem 0; }
figure.table { margin: 1rem 0; }
.scroll { overflow-x: auto; }
figure img { display: block; width: 100%; min-width: 32rem; height: auto; }
figcaption { margin-top: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
table.few { width: auto; min-width: 16rem; }
th, td { padding: .38rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: baseline; }
th { font-weight: 600; color: var(--quiet); font-size: .85rem; line-height: 1.3; vertical-align: bottom; }
thead th { border-bottom: 1px solid var(--quiet); }
td.r, th.r { text-align: right; }
td.l, td.r, .together { white-space: nowrap; }
td.w { min-width: 16rem; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tr.last td { border-bottom-color: var(--quiet); }
pre { background: var(--soft); border-radius: 6px; padding: .9rem 1rem; overflow-x: auto; margin: 1rem 0;
  font: .86rem/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
summary { cursor: pointer; color: var(--link); font-size: .92rem; margin: 1rem 0; }
footer { margin: 4rem 0 3rem; }
@media (min-width: 76rem) {
  body { display: grid; grid-template: auto auto auto / 17rem 52rem; column-gap: 3.5rem; justify-content: center; }
  header, nav, main, footer { grid-column: 2; width: auto; margin-inline: 0; }
  nav { grid-area: 1 / 1 / 4 / 2; position: sticky; top: 3rem; align-self: start; margin-top: 3rem; border: 0;
    padding: .4rem 0; max-height: calc(100vh - 5rem); overflow-y: auto; }
  main section:first-child h2 { margin-top: 1rem; }
}
@media print { nav { display: none; } h2 { break-after: avoid; } figure, table, pre { break-inside: avoid; } }
"""


def render(document: Document) -> str:
    """The whole page as text."""
    links = "\n".join(f'<li><a href="#{escape(s.anchor)}">{_words(s.title)}</a></li>' for s in document.sections)
    body = "\n".join(_section(section) for section in document.sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(document.title)}</title>
<link rel="icon" href="data:,">
<style>{CSS}</style>
</head>
<body>
<header>
<h1>{escape(document.title)}</h1>
<p class="lead">{_words(document.lead)}</p>
</header>
<nav aria-label="Contents"><ul>
{links}
</ul></nav>
<main>
{body}
</main>
<footer class="quiet">Written by netslim from the records of the sweep. The same figures are in figures/, the numbers of
every job in results.csv, and this text in report.md.</footer>
</body>
</html>
"""


def _words(text: str) -> str:
    """Escaped text in which |γ|, λ = 1e-4, n = 3 and 50 ± 1 % are not torn at the end of a line."""
    together = re.sub(r"(?<=\d) (?=[±%])|(?<=±) (?=\d)", "\u00a0", escape(text))
    return re.sub(r"\|γ\||\b[λn] = [\d.e-]*\d", r'<span class="together">\g<0></span>', together)


def _section(section: Section) -> str:
    anchor = escape(section.anchor)
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f'<section id="{anchor}">\n<h2><a href="#{anchor}">{_words(section.title)}</a></h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    match block:
        case Text(text, quiet):
            return f'<p class="quiet">{_words(text)}</p>' if quiet else f"<p>{_words(text)}</p>"
        case Lines(lines):
            return f'<pre tabindex="0">{escape(chr(10).join(lines))}</pre>'
        case Picture():
            return _picture(block)
        case Table():
            return _table(block)


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    image = f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}">'
    caption = f"<figcaption>{_words(picture.caption)}</figcaption>"
    return f'<figure>\n<div class="scroll" tabindex="0">{image}</div>\n{caption}\n</figure>'


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col" class="{side}">{_words(cell)}</th>'
        for side, cell in zip(table.align, table.head, strict=True)
    )
    rows = []
    for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
        cells = "".join(f'<td class="{side}">{escape(cell)}</td>' for side, cell in zip(table.align, row, strict=True))
        last = table.grouped and following is not None and following[0] != row[0]
        rows.append(f'<tr class="last">{cells}</tr>' if last else f"<tr>{cells}</tr>")
    top = f"<thead><tr>{head}</tr></thead>\n" if any(table.head) else ""
    body = f"<tbody>\n{chr(10).join(rows)}\n</tbody>"
    caption = f"\n<figcaption>{_words(table.caption)}</figcaption>" if table.caption else ""
    few = ' class="few"' if len(table.align) <= 3 and "w" not in table.align else ""
    html = f'<div class="scroll" tabindex="0"><table{few}>{top}{body}</table></div>'
    if table.folded:
        html = f"<details><summary>{escape(table.folded)}</summary>\n{html}\n</details>"
    return f'<figure class="table">{html}{caption}</figure>'
