"""What outputs/published has of a sweep that compares methods: all its records in one archive, a table, a picture.

No path of the machine it ran on is in them; what the command said of folders is left out or shortened to their names.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netslim import files
from netslim.experiment.paths import load_jobs
from netslim.report import controls, formats, results, table
from netslim.report.figures import accuracy
from netslim.report.render import images, markdown
from netslim.report.render.document import Document, Points, Section
from netslim.report.results import Group
from netslim.report.sections import comparison, cost, result
from netslim.report.sections.verdict import Verdict

ARCHIVE, TABLE, NUMBERS = "records.tar.xz", "methods.md", "results.csv"
PICTURE, HEADLINE = "accuracy-over-macs.png", "headline.md"
RECORDS = ("record.json", "settings.json", "scales.json", "sweep.json")
ELSEWHERE = re.compile(r"(^| )(?:outputs|data\.cache_dir)=\S+")  # settings that say where, and change nothing


def publish(sweep: Path, target: Path) -> None:
    """Write archive, table, numbers, picture and its text of a sweep's folder into ``target``.

    Raises:
        ValueError: no job has finished.
    """
    if not load_jobs(sweep):
        raise ValueError(f"{sweep}: no job has finished yet; there is nothing to publish")
    files.write_bytes(target / ARCHIVE, archive(sweep))
    with unpacked(target / ARCHIVE) as folder:
        groups = results.groups(load_jobs(folder))
    shown = comparison.table(groups) or result.main_table(groups)
    rows = [*(table.row(job, group.label) for group in groups for job in group.jobs), *controls.rows(groups)]
    files.write_text(target / NUMBERS, table.to_csv(rows))
    section = Section("Methods", [Points(comparison.sentences(groups) or said(groups)), shown])
    files.write_text(target / TABLE, markdown.render(Document(target.name, seeds(groups), [section])))
    files.write_bytes(target / PICTURE, picture(groups))
    files.write_text(target / HEADLINE, headline(groups, target))


def archive(sweep: Path) -> bytes:
    """The records of a sweep, the same bytes for the same records."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w:xz") as tar:
        for path in sorted(path for name in RECORDS for path in [*sweep.glob(name), *sweep.glob(f"*/{name}")]):
            content = json.dumps(anonymous(json.loads(path.read_text())), indent=1, ensure_ascii=False).encode()
            member = tarfile.TarInfo(path.relative_to(sweep).as_posix())
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return found.getvalue()


def anonymous(content: Any) -> Any:
    """The content of a record without the folders of a machine.

    >>> anonymous({"command": "netslim ratio=0.5 outputs=/home/me/out data.root=/data/cifar", "jobs": ["outputs=/x"]})
    {'command': 'netslim ratio=0.5 data.root=cifar', 'jobs': []}
    """
    if isinstance(content, dict):
        return {key: anonymous(value) for key, value in content.items()}
    if isinstance(content, list):
        return [anonymous(value) for value in content if not (isinstance(value, str) and ELSEWHERE.fullmatch(value))]
    if isinstance(content, str):
        return re.sub(r"(^|=)/(?:[^/\s]+/)*", r"\1", ELSEWHERE.sub("", content))
    return content


@contextmanager
def unpacked(records: Path) -> Iterator[Path]:
    """A folder as a sweep leaves it, without weights."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(records) as tar:
        tar.extractall(folder, filter="data")
        yield Path(folder)


def said(groups: list[Group]) -> list[str]:
    """What the methods reach at every ratio; of one method, what the report says of it."""
    return comparison.methods(groups) or Verdict(groups[0]).sentences()[:1]


def seeds(groups: list[Group]) -> str:
    found = formats.listing([str(seed) for seed in sorted({seed for group in groups for seed in group.seeds})])
    return f"{groups[0].network} on {groups[0].data}, seeds {found}."


def picture(groups: list[Group]) -> bytes:
    """Accuracy over MACs as PNG: every method, and the controls of the one that has most of them."""
    alone = len({strength for group in groups for strength in group.lambdas}) == 1
    paths = [cost.path(group, strength, named=alone) for group in groups for strength in group.lambdas]
    most = max(groups, key=lambda group: len({record.control for job in group.jobs for record in job.controls}))
    compared, _ = cost.near(paths, cost.control_paths(controls.controls([most])))
    unit, sizes = formats.unit(most.metric), {"macs": accuracy.SIZES["macs"]}
    drawn = accuracy.cost(
        [*paths, *compared], metric=f"test {unit.axis}", scale=unit.scale, sizes=sizes, width=images.WIDE
    )
    return images.save(drawn, "png")


def headline(groups: list[Group], target: Path) -> str:
    """The picture with its text, as the first page of the project shows it: the deepest cut in a sentence."""
    deepest, spread = said(groups)[-1], formats.seeds_note(len(group.seeds) for group in groups)
    title = f"{groups[0].network} on {groups[0].data}: test accuracy over multiply-adds"
    picture = f"![{title}, logarithmic; a line per method, controls in grey](outputs/published/{target.name}/{PICTURE})"
    link = "[Command and records](outputs/published/README.md)"
    return f"{picture}\n\n*{title}, with controls from new weights in grey. {spread} {deepest} {link}.*\n"
