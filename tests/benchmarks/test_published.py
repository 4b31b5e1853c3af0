"""The page of published results says what the records beside it say."""

from __future__ import annotations

import re

import published


def test_every_table_is_that_of_its_record():
    page = (published.PUBLISHED / "README.md").read_text()
    assert published.render(page) == page
    assert len(re.findall("<!-- table ", page)) == len(published.BLOCK.findall(page)) >= 6


def test_the_records_are_there():
    page = (published.PUBLISHED / "README.md").read_text()
    sources = [source for _, source, _, _ in published.BLOCK.findall(page)]
    missing = {source for source in sources if source != "paper" and not (published.PUBLISHED / source).exists()}
    sweeps = {f"high_ratio_{of}/methods.md" for of in ("digits", "cifar", "cifar_macs")}  # hours of training
    assert missing <= {"benchmark/runtime_latency.md", *sweeps}  # the first needs a machine that does nothing else


def test_a_changed_number_is_found():
    page = (published.PUBLISHED / "README.md").read_text()
    assert published.render(page.replace("80.12", "81.12")) == page


def test_the_first_page_shows_what_is_published():
    page = (published.ROOT / "README.md").read_text()
    assert published.first_page(page) == page
    assert len(published.FIRST.findall(page)) == 1
