"""The report of sweeps: records -> one HTML page, Markdown, figures and tidy CSV files.

    results, intervals, table   records -> groups of jobs, statistics, rows
    figures/                    plain numbers -> a matplotlib figure
    sections/                   a group of jobs -> paragraphs, tables, pictures
    render/                     those -> HTML, Markdown, LaTeX, images

A new section, or a figure with what there is to say about it: a file in sections/ with a function from a `Group` to
its sections, and its line in `sections.lab.SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netslim import files
from netslim.experiment import paths
from netslim.experiment.records import FinishedJob
from netslim.experiment.sweep_record import SweepRecord
from netslim.report import controls, gamma_history, results, table, unfinished
from netslim.report.render import images, latex, markdown, page, terminal
from netslim.report.render.document import Document, Picture
from netslim.report.render.images import Image
from netslim.report.results import Group
from netslim.report.sections import overview, result


def build(*sweeps: Path, formats: Sequence[str] = (), width: float = 3.35) -> Path:
    """Write ``<sweep>/report/`` from what is recorded in the folder of a sweep.

    Writes `index.html` (self-contained), `report.md`, `summary.tex`, `figures/*.png`, and as tidy tables `results.csv`
    (jobs), `epochs.csv`, `scales.csv` (γ) and, where it was recorded, `gamma-history.csv` (γ over
    epochs). They hold no time, date or machine, so the same results give the same bytes, however often the sweep was
    interrupted.

    Args:
        sweeps: the folder, outputs/<name>. Of several, `outputs/a` and `outputs/b`, the report is in `outputs/a+b`.
        formats: in which the figures are drawn for print besides: "pdf", "svg", "png".
        width: of the figures for print, in inches; 3.35 is a column.

    Returns:
        The path of index.html.

    Raises:
        ValueError: a folder is missing, no job has finished, a record cannot be used, or a format is not known.
    """
    if unknown := set(formats) - set(images.FORMATS):
        raise ValueError(f"no figures in format {min(unknown)!r}; give some of {','.join(images.FORMATS)}")
    if not 2 <= width <= 20:
        raise ValueError(f"figures cannot be {width:g} inches wide; give 2 to 20, such as 3.35 for a column")
    folders = list(dict.fromkeys(map(Path, sweeps)))
    groups, asked, waiting = _load(folders)
    document = overview.document(groups, sweeps=asked, unfinished=waiting)
    folder = folders[0].with_name("+".join(path.name for path in folders)) / "report"
    drawn = {picture.name: images.image(picture) for picture in document.pictures}
    _write_figures(folder / "figures", document.pictures, drawn, formats, width)
    _write_numbers(folder, groups)
    _write_text(folder, document, drawn)
    files.write_text(folder / "summary.tex", latex.render(result.main_table(groups)))
    return folder / "index.html"


def summary(*sweeps: Path) -> str:
    """The result of every stage as a table for the terminal.

    Raises:
        ValueError: a folder is missing, no job has finished, or a record cannot be used.
    """
    groups, *_ = _load(list(dict.fromkeys(map(Path, sweeps))))
    return terminal.render(result.every_stage(groups))


def _load(folders: Sequence[Path]) -> tuple[list[Group], list[SweepRecord], list[str]]:
    """The groups of all jobs, what was asked for, and the commands of jobs that are missing."""
    jobs: list[FinishedJob] = []
    origins: list[str] = []
    asked: list[SweepRecord] = []
    waiting: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give the folder of a sweep, outputs/<name>")
        found, sweep = paths.load_jobs(folder), paths.load_sweep(folder)
        missing = unfinished.unfinished(sweep, found)
        if not found:
            remedy = f"run: {missing[0]}" if missing else "give the folder of a sweep, outputs/<name>"
            raise ValueError(f"{folder}: no job has finished yet; {remedy}")
        jobs, waiting, origins = jobs + found, waiting + missing, origins + [folder.name] * len(found)
        asked += [sweep] if sweep else []
    return results.groups(jobs, origins), asked, waiting


def _write_figures(
    folder: Path, pictures: Sequence[Picture], drawn: dict[str, Image], formats: Sequence[str], width: float
) -> None:
    written = {folder / f"{name}.png": image.png for name, image in drawn.items()}
    for picture in pictures if formats else ():
        figure = picture.draw(width=width)
        ending = {"png": "-print.png"}
        written |= {folder / f"{picture.name}{ending.get(of, f'.{of}')}": images.save(figure, of) for of in formats}
    for path, content in written.items():
        files.write_bytes(path, content)
    # What an earlier report of this sweep drew and this one does not would only mislead.
    for old in {path for of in images.FORMATS for path in folder.glob(f"*.{of}")} - written.keys():
        old.unlink(missing_ok=True)


def _write_numbers(folder: Path, groups: Sequence[Group]) -> None:
    """The tidy tables; a training that several jobs share is in them once."""
    labelled = [(group.label, job) for group in groups for job in group.jobs]
    trained = {(label, job.train.name): (label, job.train) for label, job in labelled}
    results = [*(table.row(job, label) for label, job in labelled), *controls.rows(groups)]
    files.write_text(folder / "results.csv", table.to_csv(results))
    files.write_text(folder / "epochs.csv", table.to_csv(table.epochs(labelled)))
    rows = (row for label, train in trained.values() for row in table.scales(train, label))
    files.write_text(folder / "scales.csv", table.to_csv(rows))
    if history := [row for label, train in trained.values() for row in gamma_history.rows(train, label)]:
        files.write_text(folder / gamma_history.FILE, table.to_csv(history))


def _write_text(folder: Path, document: Document, drawn: dict[str, Image]) -> None:
    files.write_text(folder / "report.md", markdown.render(document))
    files.write_text(folder / "index.html", page.render(document, drawn))
