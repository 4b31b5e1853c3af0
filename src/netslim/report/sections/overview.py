"""The whole document: the result, the method, the sections of every group, how it was run."""

from __future__ import annotations

from collections.abc import Sequence

from netslim.experiment.sweep_record import SweepRecord
from netslim.report import formats
from netslim.report.render.document import Document
from netslim.report.results import Group
from netslim.report.sections import lab, method, provenance, result


def document(groups: Sequence[Group], *, sweeps: Sequence[SweepRecord], unfinished: Sequence[str]) -> Document:
    """The report of one or several sweeps."""
    networks = formats.distinct(group.network for group in groups)
    data = formats.distinct(group.data for group in groups)
    title = f"Network Slimming: {formats.listing(networks)} on {formats.listing(data)}"
    sections = [result.summary(groups, unfinished), method.drawing(groups)]
    for group in groups:
        sections += lab.sections(group)
    return Document(title, _lead(groups, len(unfinished)), [*sections, provenance.how_it_was_run(groups, sweeps)])


def _lead(groups: Sequence[Group], missing: int) -> str:
    strengths = _all(groups, "lambdas", formats.strength)
    ratios = formats.listing(
        [
            _all([g for g in groups if g.of == of], "ratios", formats.ratio) + ("" if of == "channels" else f" of {of}")
            for of in formats.distinct(group.of for group in groups)
        ]
    )
    seeds = _all(groups, "seeds", str)
    tuned = any(job.finetune for group in groups for job in group.jobs)
    trained = any(job.train.epochs for group in groups for job in group.jobs)
    ran = f"Sparsity training at λ = {strengths}, then" if trained else "A network that was trained before,"
    ran += f" pruning at {ratios}"
    ran += ", then fine-tuning" if tuned else ", without fine-tuning"
    plural = "s" if " " in seeds else ""
    return f"{ran}, with seed{plural} {seeds}: {_finished(sum(len(group.jobs) for group in groups), missing)}."


def _all(groups: Sequence[Group], name: str, show: formats.Show) -> str:
    """Every value once; of more than eight the ends and their number."""
    values = sorted({value for group in groups for value in getattr(group, name)})
    if len(values) > 8:
        return f"{show(values[0])} to {show(values[-1])} ({len(values)} values)"
    return formats.listing([show(value) for value in values])


def _finished(done: int, missing: int) -> str:
    if missing:
        return f"{done} of {done + missing} jobs finished"
    return f"all {done} jobs finished" if done > 1 else "one job"
