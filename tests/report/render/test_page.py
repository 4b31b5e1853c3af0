"""Oracle: Python's own HTML parser reads the page back."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest

from netslim.report.render import markdown, page
from netslim.report.render.document import Document, Lines, Picture, Section, Table, Text

LAB = [
    "Summary",
    "Sparsity Training Accuracy over Epochs",
    "Scaling Factor Distribution of λ = 0",
    "Scaling Factor Distribution of λ = 1e-5",
    "Scaling Factor Distribution of λ = 1e-4",
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
    files = {path.read_bytes() for path in (sweep / "report" / "figures").glob("*.png")}
    images = reader.all("img")
    assert len(images) == len(files) == 8
    for image in images:
        source = image["src"] or ""
        assert source.startswith("data:image/png;base64,")
        png = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        assert png in files
        assert len(png) > 10_000
        assert len(image["alt"] or "") > 40


def test_the_page_needs_nothing_but_itself(reader: Reader, sweep: Path) -> None:
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "iframe", "object", "base"})
    for _, attrs in reader.tags:
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset"):
                assert (value or "").startswith(("data:", "#"))
    css = (page.TEMPLATES / "page.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_every_link_of_the_contents_has_its_target(reader: Reader) -> None:
    targets = [attrs["id"] for attrs in reader.all("section")]
    assert len(set(targets)) == len(LAB)
    assert {(attrs["href"] or "")[1:] for attrs in reader.all("a")} == set(targets)


HOSTILE = "<script>alert(1)</script> \"quoted\" & 'single' | *star* `tick` [x](http://y)"


def test_everything_is_escaped() -> None:
    picture = Picture("a.png", b"png", alt=HOSTILE, caption=HOSTILE)
    table = Table([HOSTILE], [[HOSTILE]], "l", HOSTILE, folded=HOSTILE)
    document = Document(HOSTILE, HOSTILE, [Section(HOSTILE, [Text(HOSTILE), Lines([HOSTILE]), picture, table])])
    found = Reader(page.render(document))
    assert not found.all("script")
    assert found.headings == [HOSTILE]
    assert found.all("img")[0]["alt"] == HOSTILE
    # In title, h1, lead, contents, h2, p, pre, summary, th, td and the captions of figure and table.
    assert found.text.count(HOSTILE) == 12
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
