"""What a report says of one group of jobs: the lab's sections under the lab's names, then size.

A section of one's own: a file with a function from a `Group` to its sections, and its line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from netslim.report.render.document import Section
from netslim.report.results import Group
from netslim.report.sections import finetuning, scales, scan, size, stages, training

SECTIONS: list[Callable[[Group], list[Section]]] = [
    training.accuracy_over_epochs,
    scales.distributions,
    scan.before_the_cut,
    stages.test_per_ratio,
    finetuning.accuracy_over_epochs,
    size.channels,
]


def sections(group: Group) -> list[Section]:
    """All sections of one group; their titles carry its label when there are several groups."""
    found = [section for of in SECTIONS for section in of(group)]
    return [replace(section, title=f"{section.title} ({group.label})") if group.label else section for section in found]
