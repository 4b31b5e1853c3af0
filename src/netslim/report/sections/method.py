"""The method in one drawing, with the numbers of this sweep."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from netslim.report.figures import steps
from netslim.report.render.document import Picture, Section
from netslim.report.results import Group


def drawing(groups: Sequence[Group]) -> Section:
    jobs = [group.jobs[0] for group in groups]
    job = next((job for job in jobs if job.method in ("", "paper") and job.slim), jobs[0])
    epochs = len(job.train.epochs)
    tuned = f"{len(job.finetune.epochs)} epochs without the penalty" if job.finetune else "left out here"
    ranked = f"all {job.cut.prunable} channels by {job.slim.unit if job.slim else 'their score'}, one threshold"
    boxes = [
        ("Train", f"{epochs} epochs; the loss gets λ·Σ|γ| on top"),
        ("Rank", ranked if job.slim else f"{ranked}, at the ends of epochs"),
        ("Remove", "the channels under it, from the network itself"),
        ("Fine-tune", tuned),
    ]
    said = " ".join(f"{number}. {title}: {text}." for number, (title, text) in enumerate(boxes, start=1))
    caption = "A channel with γ = 0 in its BatchNorm layer gives nothing to the layers behind it, so it can be removed."
    picture = Picture("method", partial(steps.steps, boxes), f"Four steps in a row. {said}", caption, "")
    return Section("Method", [picture])
