"""The report of a sweep: records -> one HTML page, Markdown, PNG figures and one CSV row per job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netslim import files
from netslim.experiment import paths
from netslim.report import results, table, unfinished
from netslim.report.render import markdown, page
from netslim.report.render.document import Picture
from netslim.report.sections import overview


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
    jobs, asked = paths.load_jobs(sweep), paths.load_sweep(sweep)
    waiting = unfinished.unfinished(asked, jobs)
    if not jobs:
        remedy = f"run: {waiting[0]}" if waiting else "give the folder of a sweep, outputs/<name>"
        raise ValueError(f"{sweep}: no job has finished yet; {remedy}")
    groups = results.groups(jobs)
    document = overview.document(groups, sweep=asked, unfinished=waiting)
    folder = sweep / "report"
    _write_figures(folder / "figures", document.pictures)
    rows = [table.row(job, group.label) for group in groups for job in group.jobs]
    files.write_text(folder / "results.csv", table.to_csv(rows))
    files.write_text(folder / "report.md", markdown.render(document))
    files.write_text(folder / "index.html", page.render(document))
    return folder / "index.html"


def _write_figures(folder: Path, pictures: Sequence[Picture]) -> None:
    for picture in pictures:
        files.write_bytes(folder / picture.name, picture.png)
    # What an earlier report of this sweep drew and this one does not would only mislead.
    for old in set(folder.glob("*.png")) - {folder / picture.name for picture in pictures}:
        old.unlink(missing_ok=True)
