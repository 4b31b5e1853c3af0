"""The sections of the lab, in its order and under its names."""

from __future__ import annotations

from dataclasses import replace

from netslim.report.render.document import Section
from netslim.report.results import Part
from netslim.report.sections import pruning, size, training


def sections(part: Part) -> list[Section]:
    """All sections of one part; their titles carry its label when there are several parts."""
    found = [
        training.accuracy_over_epochs(part),
        *(training.distribution(part, strength) for strength in part.lambdas),
        *(pruning.test_accuracy(part, ratio) for ratio in part.ratios),
        pruning.fine_tuning(part),
        size.channels(part),
    ]
    return [replace(section, title=f"{section.title} ({part.label})") if part.label else section for section in found]
