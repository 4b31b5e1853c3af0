"""Oracle: Python's own HTML parser reads the page back."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from netslim.report.figures import canvas
from netslim.report.render import images, latex, markdown, page
from netslim.report.render.document import Document, Fold, Lines, Picture, Points, Section, Table, Text

LAB = [
    "Summary",
    "Method",
    "Sparsity Training Accuracy over Epochs",
    "Scaling Factor Distribution of λ = 0, 1e-5 and 1e-4",
    "Test Accuracy with Prune Ratio 50 %",
    "Test Accuracy with Prune Ratio 90 %",
    "Fine Tuning Accuracy over Epochs",
    "Parameters, MACs and Kept Channels per Layer",
    "How It Was Run",
]
VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Headings, attributes and text of a page; fails on a tag that is closed where it is not open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        plain = data.replace("\u00a0", " ")
        if "style" not in self.open:
            self.text += plain
        if "h2" in self.open:
            self.headings[-1] += plain

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def reader(sweep: Path) -> Reader:
    return Reader((sweep / "report" / "index.html").read_text())


def test_the_sections_of_the_lab_in_its_order(reader: Reader, sweep: Path) -> None:
    assert reader.headings == LAB
    titles = [line[3:] for line in (sweep / "report" / "report.md").read_text().splitlines() if line.startswith("## ")]
    assert titles == LAB


def test_every_figure_is_in_the_page_and_said_in_words(reader: Reader, sweep: Path) -> None:
    files = {path.stem for path in (sweep / "report" / "figures").glob("*.png")}
    assert all(path.stat().st_size > 10_000 for path in (sweep / "report" / "figures").glob("*.png"))
    images = [attrs for attrs in reader.all("div") if attrs.get("role") == "img"]
    assert len(reader.all("svg")) == len(images) == 2 * len(files) == 2 * 8  # for a desk and for a phone
    assert not reader.all("img")
    for image in images:
        assert len(image["aria-label"] or "") > 40


def test_figures_take_their_colours_from_the_page(sweep: Path) -> None:
    text = (sweep / "report" / "index.html").read_text()
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    used = set(re.findall(r"var\(--c([0-9a-f]{6}), #\1\)", drawn))
    plain = re.sub(r"var\(--c[0-9a-f]{6}, #[0-9a-f]{6}\)", "", drawn)
    assert len(used) > 8
    assert not re.search(r"#[0-9a-f]{6}\b(?!\w)", re.sub(r'(xlink:href="|url\()#\w+', "", plain))
    (dark,) = re.findall(r"@media screen and \(prefers-color-scheme: dark\) { \.picture { (.*?)} }", text)
    assert set(re.findall(r"--c([0-9a-f]{6}):", dark)) == used


def test_no_identifier_is_there_twice(reader: Reader) -> None:
    found = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(found) == len(set(found))


def test_the_page_needs_nothing_but_itself(reader: Reader, sweep: Path) -> None:
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "iframe", "object", "base"})
    for _, attrs in reader.tags:
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("src", "srcset", "xlink:href"):
                assert (value or "").startswith(("data:", "#"))
            if name == "href":
                assert (value or "").startswith(("data:", "#")) or (sweep / "report" / (value or "")).exists()
    css = (page.TEMPLATES / "page.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_every_link_of_the_contents_has_its_target(reader: Reader) -> None:
    targets = [attrs["id"] for attrs in reader.all("section")]
    assert len(set(targets)) == len(LAB)
    links = {attrs["href"] or "" for attrs in reader.all("a")}
    assert {link[1:] for link in links if link.startswith("#")} == set(targets)


HOSTILE = "<script>alert(1)</script> \"quoted\" & 'single' | *star* `tick` [x](http://y)"


@canvas.drawn
def hostile(*, width: float) -> Figure:
    figure, (ax,) = canvas.panels(1, 1, width=width, height=1)
    ax.plot([1, 2], label=HOSTILE)
    ax.set_title(f"{HOSTILE} $x^2$")
    canvas.legend(figure, [ax])
    return figure


def test_everything_is_escaped() -> None:
    picture = Picture("a", hostile, alt=HOSTILE, caption=HOSTILE, data=HOSTILE)
    table = Table([HOSTILE], [[HOSTILE]], "l", HOSTILE)
    blocks = [Text(HOSTILE), Points([HOSTILE]), Lines([HOSTILE]), picture, Fold(HOSTILE, [table])]
    document = Document(HOSTILE, HOSTILE, [Section(HOSTILE, blocks)])
    found = Reader(page.render(document, {"a": images.image(picture)}))
    assert not found.all("script")
    assert found.headings == [HOSTILE]
    labels = [attrs["aria-label"] for attrs in found.all("div") if "aria-label" in attrs]
    assert labels == [HOSTILE, HOSTILE]
    # In title, h1, lead, contents, h2, p, li, pre, summary, th, td, the captions of figure and table; and in the two
    # drawings, as title and in the legend.
    assert found.text.count(HOSTILE) == 13 + 4
    assert found.text.count("$x^2$") == 2
    text = markdown.render(document)
    assert "<script" not in text.replace(f"```text\n{HOSTILE}\n```", "")
    assert "[x](http" not in text.replace(f"```text\n{HOSTILE}\n```", "")


def test_a_markdown_table_has_as_many_cells_in_every_row() -> None:
    table = Table(["a|b", "c"], [["1|2", "3"]], "lr", "")
    text = markdown.render(Document("t", "l", [Section("s", [table])]))
    assert text.endswith("| a\\|b | c |\n| :--- | ---: |\n| 1\\|2 | 3 |\n")


def test_a_fence_is_longer_than_any_run_of_backticks_in_it() -> None:
    text = markdown.render(Document("t", "l", [Section("s", [Lines(["```", "x"])])]))
    assert text.endswith("````text\n```\nx\n````\n")


def test_a_latex_table_has_as_many_cells_in_every_row_and_no_sign_that_latex_reads() -> None:
    table = Table(["a_b", "λ"], [["1 & 2 %", "#{x}"]], "wr", "In\n%.")
    lines = latex.render(table).splitlines()
    assert lines[0] == "% In %."
    assert lines[1] == "\\begin{tabular}{lr}"
    assert lines[3] == "a\\_b & $\\lambda$ \\\\"
    assert lines[5] == "1 \\& 2 \\% & \\#\\{x\\} \\\\"
