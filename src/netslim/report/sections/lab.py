"""The sections of the lab, in its order and under its names."""

from __future__ import annotations

from dataclasses import replace

from netslim.report.render.document import Section
from netslim.report.results import Group
from netslim.report.sections import pruning, size, training


def sections(group: Group) -> list[Section]:
    """All sections of one group; their titles carry its label when there are several groups."""
    found = [
        training.accuracy_over_epochs(group),
        *(training.distribution(group, strength) for strength in group.lambdas),
        *(pruning.test_accuracy(group, ratio) for ratio in group.ratios),
        pruning.fine_tuning(group),
        size.channels(group),
    ]
    return [replace(section, title=f"{section.title} ({group.label})") if group.label else section for section in found]
