"""The report of a sweep: records -> one HTML page, Markdown, PNG figures and one CSV row per job."""

from __future__ import annotations

from pathlib import Path

from netslim import artifacts
from netslim.report import markdown, overview, page, results


def build(sweep: Path) -> Path:
    """Write ``<sweep>/report/`` from what is recorded in the folder of a sweep.

    Writes `index.html` (self-contained), `report.md`, `figures/*.png` and `results.csv`. The CSV holds no time, date or
    machine, so the same results give the same bytes, however often the sweep was interrupted.

    Args:
        sweep: the folder, outputs/<name>.

    Returns:
        The path of index.html.

    Raises:
        ValueError: the folder is missing, holds no finished job, or a record in it cannot be used.
    """
    sweep = Path(sweep)
    if not sweep.is_dir():
        raise ValueError(f"{sweep}: no such folder; give the folder of a sweep, outputs/<name>")
    jobs, plan = artifacts.load_jobs(sweep), artifacts.load_sweep(sweep)
    unfinished = results.unfinished(plan, jobs)
    if not jobs:
        raise ValueError(f"{sweep}: no job has finished yet; " + (f"run: {unfinished[0]}" if unfinished else "it is not the folder of a sweep"))
    parts = results.parts(jobs)
    report = overview.document(parts, sweep=plan, unfinished=unfinished)
    folder = sweep / "report"
    for picture in report.pictures:
        artifacts.write_bytes(folder / "figures" / picture.name, picture.png)
    for old in set((folder / "figures").glob("*.png")) - {folder / "figures" / picture.name for picture in report.pictures}:
        old.unlink(missing_ok=True)
    rows = [results.row(job, part.label) for part in parts for job in part.jobs]
    artifacts.write_text(folder / "results.csv", results.to_csv(rows))
    artifacts.write_text(folder / "report.md", markdown.render(report))
    artifacts.write_text(folder / "index.html", page.render(report))
    return folder / "index.html"
