"""What is published of a sweep. Oracle: the records of the lab that are in outputs/published, as two methods."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import evidence
import published
import pytest

from netslim.experiment.paths import load_jobs
from netslim.report.results import final

SECRET = "/home/somebody/secret/out"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The lab at two λ, called two methods, with weights, run in a folder whose name is nobody's business."""
    folder = shutil.copytree(published.PUBLISHED / "lab4_small" / "records", tmp_path / "sweep")
    for path in folder.glob("job_*/record.json"):
        job = json.loads(path.read_text())
        job["method"] = {0.0015: "sparse", 0.0: "plain"}.get(job["lambda"])
        job["command"] += f" outputs={SECRET} data.cache_dir={SECRET}"
        path.write_text(json.dumps(job)) if job["method"] else shutil.rmtree(path.parent)
    for path in folder.glob("train_*/record.json"):
        path.with_name("weights.pt").write_bytes(b"\0" * 1000)
    asked = [["ratio=0.5", f"outputs={SECRET}"]]
    (folder / "sweep.json").write_text(json.dumps({"command": f"netslim data.root={SECRET}/cifar", "jobs": asked}))
    return folder


def test_records_come_back_from_the_archive_and_the_numbers_stand_beside(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "published"
    evidence.publish(sweep, target)
    with evidence.unpacked(target / evidence.ARCHIVE) as folder:
        assert [final(job) for job in load_jobs(folder)] == [final(job) for job in load_jobs(sweep)]
        assert not list(folder.rglob("weights.pt"))
        texts = [path.read_text() for path in folder.rglob("*.json")]
    texts += [path.read_text() for path in target.glob("*.md")]
    assert not [text for text in texts if "somebody" in text]
    assert [text for text in texts if '"netslim data.root=cifar"' in text]
    (table,) = published.tables((target / "methods.md").read_text())
    assert "| 50 % | plain, λ = 0 | 77.26 | 1.9 × | 17 |" in table
    with (target / evidence.NUMBERS).open() as file:
        assert sorted(row["final_accuracy"] for row in csv.DictReader(file)) == ["0.1", "0.2501", "0.7716", "0.7726"]
    assert "At 90 %, the best of each method: plain 25.01 %" in (target / evidence.HEADLINE).read_text()
    assert (target / evidence.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_archive_is_the_same_for_the_same_records(sweep: Path) -> None:
    assert evidence.archive(sweep) == evidence.archive(sweep)


def test_of_one_method_its_results_are_published_of_no_job_nothing(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "published"
    for path in sweep.glob("job_lambda=0_*"):
        shutil.rmtree(path)
    evidence.publish(sweep, target)
    (table,) = published.tables((target / "methods.md").read_text())
    assert "| 77.16 | 76.3–78.0 | 50 % | 1.5e-3 |" in table
    assert "removes 50 % of the channels at λ = 1.5e-3: 77.16 %" in (target / evidence.HEADLINE).read_text()
    for path in sweep.glob("job_*"):
        shutil.rmtree(path)
    with pytest.raises(ValueError, match="there is nothing to publish"):
        evidence.publish(sweep, target)


def test_what_is_not_published_yet_is_said() -> None:
    page = "<!-- table nothing/methods.md 1 -->\nold\n<!-- end -->"
    assert published.render(page) == "<!-- table nothing/methods.md 1 -->\n\nNot run yet.\n\n<!-- end -->"
    first = "<!-- headline nothing -->\nold\n<!-- end -->"
    assert published.first_page(first) == first
