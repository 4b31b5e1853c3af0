"""The section about the scan. Oracle: the sentence, written by hand."""

from __future__ import annotations

import msgspec

from netslim.experiment.findings import ScanRecord
from netslim.experiment.records import FinishedJob
from netslim.report import results
from netslim.report.render.document import Text
from netslim.report.sections.scan import before_the_cut


def test_dead_scales_are_counted_in_the_training_whatever_an_older_scan_says(job: FinishedJob) -> None:
    points = [{"ratio": 0.5, "accuracy": 0.5, "params": 0.25, "macs": 0.5}]
    older = {"name": "scan_x", "accuracy": 0.75, "dead": 0.5, "points": points, "layers": {"bn1": 0.5, "bn2": 0.25}}
    job.beside = [msgspec.convert(older, ScanRecord)]
    (section,) = before_the_cut(*results.groups([job]))
    text = section.blocks[0]
    assert isinstance(text, Text)
    assert text.text.endswith(
        "The share of dead γ (at most 1 % of their layer's mean) is 25.00 % (λ = 1e-4): a larger ratio removes "
        "live ones."
    )
