"""The page of published results says what the records beside it say."""

from __future__ import annotations

import json
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


def test_the_trained_network_is_as_its_records_say():
    folder = published.PUBLISHED / "trained_network"
    stages = [json.loads(path.read_text()) for path in folder.glob("records/*/record.json")]
    (slim,) = [stage for stage in stages if stage["stage"] == "slim"]
    tuned = [{**slim["slim"], "test": stage["test"]} for stage in stages if stage["stage"] == "finetune"]
    recalibrated = {**slim["slim"], **slim["recalibrated"]}
    dense = [{**slim["dense"], "test": stage["test"]} for stage in stages if stage["name"].startswith("dense")]
    expected = [
        [f"{100 * one['test']['correct'] / one['test']['total']:.2f}", f"{one['params']:,}", f"{one['macs']:,}"]
        for one in (slim["dense"], slim["slim"], recalibrated, *tuned, *dense)
    ]
    (table,) = published.tables((folder / "record.md").read_text())
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert [cells[1:] for cells in rows] == expected
    given = [stage["test"] for stage in stages if stage["stage"] == "train"]
    assert given == 2 * [slim["dense"]["test"]]  # as it was trained, and as it was read again


def test_a_changed_number_is_found():
    page = (published.PUBLISHED / "README.md").read_text()
    assert published.render(page.replace("80.12", "81.12")) == page


def test_the_first_page_shows_what_is_published():
    page = (published.ROOT / "README.md").read_text()
    assert published.first_page(page) == page
    assert len(published.FIRST.findall(page)) == 1
