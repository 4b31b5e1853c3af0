"""A student's evening and a researcher's: the commands as they type them, and the page as a browser shows it."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=3000"]


def typed(*words: str, module: str = "netslim", code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, timeout=500)
    assert done.returncode == code, done.stderr
    return done


def seen(page: Path, profile: Path) -> str:
    """The text that a browser shows of a page, without its figures."""
    flags = [*FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run([str(CHROMIUM), *flags], capture_output=True, text=True, timeout=120, check=True)
    text = re.sub(r"<(style|svg).*?</\1>", "", done.stdout, flags=re.DOTALL)
    words = re.sub(r"<[^>]*>", " ", re.sub(r"</?span[^>]*>", "", text))
    return " ".join(html.unescape(words).split())


def test_a_student_runs_the_lab_and_hands_the_page_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong first, then short to see that it runs, then the lab; the page answers what the lab asks."""
    monkeypatch.chdir(tmp_path)
    assert "netslim -m experiment=lab4_digits" in typed().stdout
    (line,) = typed("experiment=lab4_digits", code=2).stderr.splitlines()
    assert line.endswith("write netslim -m experiment=lab4_digits, or one value of each")
    short = ["-m", "experiment=lab4_digits", "method=paper", "lambda=0,2e-2", "epochs=2", "finetune.epochs=1"]
    assert "2 train, 4 slim, 4 finetune" in typed("--dry-run", *short).stdout
    assert not list(tmp_path.iterdir())

    table = typed(*short, "quiet=true").stdout
    assert table.count(" 50 % ") == table.count(" 90 % ") == 2
    sweep = tmp_path / "outputs" / "lab4_digits"
    text = seen(sweep / "report" / "index.html", tmp_path / "profile")
    for heading in ("Sparsity Training Accuracy over Epochs", "Scaling Factor Distribution of λ = 0 and 2e-2"):
        assert heading in text
    assert "Test Accuracy with Prune Ratio 90 %" in text
    (job,) = sweep.glob("job_lambda=0.02_ratio=0.9_*")
    tuned = json.loads((sweep / json.loads((job / "record.json").read_text())["finetune"] / "record.json").read_text())
    test = tuned["test"]
    assert f"after fine-tuning Test set: Accuracy: {test['correct']}/364 ({test['correct'] / 3.64:.1f}%)" in text
    assert f"{100 * test['correct'] / 364:.2f}" in table


def test_a_researcher_sweeps_resumes_and_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds, a wider grid in the same folder, figures for print, a table for the paper, two folders on one page."""
    monkeypatch.chdir(tmp_path)
    small = ["experiment=lab4_digits", "method=paper", "epochs=1", "finetune.epochs=1", "ratio=0.5", "quiet=true"]
    typed("-m", *small, "lambda=0", "seed=0,1")
    assert (
        "finished:  2 train, 2 slim, 2 finetune" in typed("--dry-run", "-m", *small, "lambda=0,1e-2", "seed=0,1").stdout
    )
    typed("-m", *small, "lambda=0,1e-2", "seed=0,1")
    typed(*small, "lambda=0", "net.layers=[8,8,M,16,16]", "name=narrow")

    folders = ["outputs/lab4_digits", "outputs/narrow"]
    typed(*folders[:1], "--format", "pdf,svg", "--width", "3.35", module="netslim.report")
    report = tmp_path / "outputs" / "lab4_digits" / "report"
    pictures = {path.stem for path in (report / "figures").glob("*.pdf")}
    assert pictures
    assert pictures == {path.stem for path in (report / "figures").glob("*.svg")}
    rows = list(csv.DictReader((report / "results.csv").read_text().splitlines()))
    assert sorted((float(row["lambda"]), row["seed"]) for row in rows) == [(0, "0"), (0, "1"), (0.01, "0"), (0.01, "1")]
    assert r"$\pm$" in (report / "summary.tex").read_text()

    typed(*folders, module="netslim.report")
    text = seen(tmp_path / "outputs" / "lab4_digits+narrow" / "report" / "index.html", tmp_path / "profile")
    assert "lab4_digits" in text
    assert "narrow" in text
    assert "n = 2" in text
