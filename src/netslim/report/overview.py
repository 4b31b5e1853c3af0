"""What stands around the lab's sections: title, summary with the main table, and how it was run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from netslim.report import formats, lab
from netslim.report.document import Block, Document, Lines, Section, Table, Text
from netslim.report.results import STAGES, Part, Record, accuracy, spread


def document(parts: Sequence[Part], *, sweep: Record | None, unfinished: Sequence[str]) -> Document:
    """The whole report of a sweep."""
    networks, data = _distinct(part.network for part in parts), _distinct(part.data for part in parts)
    title = f"Network Slimming: {formats.listing(networks)} on {formats.listing(data)}"
    sections = [summary(parts, unfinished)]
    for part in parts:
        sections += lab.sections(part)
    return Document(title, _lead(parts, len(unfinished)), [*sections, how_it_was_run(parts, sweep)])


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _lead(parts: Sequence[Part], missing: int) -> str:
    strengths = [formats.strength(value) for value in sorted({value for part in parts for value in part.lambdas})]
    ratios = [formats.ratio(value) for value in sorted({value for part in parts for value in part.ratios})]
    seeds = [str(value) for value in sorted({value for part in parts for value in part.seeds})]
    done = sum(len(part.jobs) for part in parts)
    tuned = any(job["finetune"] for part in parts for job in part.jobs)
    ran = f"Sparsity training at λ = {formats.listing(strengths)}, then pruning at {formats.listing(ratios)}"
    ran += ", then fine-tuning" if tuned else ", without fine-tuning"
    finished = f"{done} of {done + missing} jobs finished" if missing else f"all {done} jobs finished" if done > 1 else "one job"
    return f"{ran}, with seed{'s' if len(seeds) > 1 else ''} {formats.listing(seeds)}: {finished}."


def summary(parts: Sequence[Part], unfinished: Sequence[str]) -> Section:
    """The main table, one row per part, ratio and λ, and the jobs that are missing from it."""
    rows, ns = [], []
    for part in parts:
        for ratio in part.ratios:
            for strength in part.lambdas:
                if jobs := part.at(strength, ratio):
                    ns.append(len(jobs))
                    own = [part.label] if part.label else []
                    rows.append([*own, formats.ratio(ratio), formats.strength(strength), *_result_cells(jobs), str(len(jobs))])
    own = ["part"] if parts[0].label else []
    head = [*own, "ratio", "λ", "dense", "after pruning", "recali­brated", "fine-tuned", "param­eters left", "MACs left", "removed", "n"]
    caption = (
        "Test accuracy in %, of the last epoch, never of the best one. Ratio: share of channels asked to be removed; removed: the share "
        f"that was. Parameters and MACs left in % of the dense network. {lab.seeds_note(ns)}"
    )
    blocks: list[Block] = [Table(head, rows, "l" * (2 + len(own)) + "r" * 8, caption, grouped=True)]
    if unfinished:
        many = "These jobs of the sweep have" if len(unfinished) > 1 else "One job of the sweep has"
        blocks += [Text(f"{many} not finished and {'are' if len(unfinished) > 1 else 'is'} missing here. To run just one:"), Lines(list(unfinished))]
    return Section("Summary", blocks)


def _result_cells(jobs: list[Record]) -> list[str]:
    cells = []
    for of in STAGES.values():
        value = spread(accuracy(test) for job in jobs if (test := of(job)))
        cells.append(formats.percent(value) + (f" (n = {value.n})" if value and value.n != len(jobs) else ""))
    for what in ("params", "macs"):
        cells.append(formats.percent(spread(job["slim"]["slim"][what] / job["slim"]["dense"][what] for job in jobs), digits=1))
    return [*cells, formats.percent(spread(job["slim"]["removed"] / job["slim"]["prunable"] for job in jobs))]


def how_it_was_run(parts: Sequence[Part], sweep: Record | None) -> Section:
    """Command, settings, versions, hardware, shrinkage budgets and the wall-clock of every stage."""
    jobs = [job for part in parts for job in part.jobs]
    records = _distinct_records(jobs)
    runs = [record["run"] for _, record, _ in records]
    tuned = [job["finetune"] for job in jobs if job["finetune"]]
    commands = [sweep["command"]] if sweep else _distinct(job["command"] for job in jobs)
    facts = [
        ["network", formats.listing(_distinct(part.network for part in parts))],
        ["data set", formats.listing(_distinct(part.data for part in parts))],
        ["seeds", formats.listing([str(seed) for seed in sorted({job["seed"] for job in jobs})])],
        ["training", "; ".join(_distinct(_schedule(job["train"]) for job in jobs))],
        ["fine-tuning", "; ".join(_distinct(map(_schedule, tuned))) or "not run"],
        ["hardware", "; ".join(_distinct(run["hardware"] for run in runs))],
        ["versions", "; ".join(_distinct(", ".join(f"{name} {version}" for name, version in run["versions"].items()) for run in runs))],
        ["wall-clock", f"{formats.duration(sum(run['seconds'] for run in runs))}, all stages one after another"],
    ]
    budgets = sorted({(part.label, job["lambda"], job["train"]["budget"]) for part in parts for job in part.jobs})
    own = ["part"] if parts[0].label else []
    budget_rows = [[*([label] if own else []), formats.strength(value), f"{budget:.3g}"] for label, value, budget in budgets]
    return Section("How It Was Run", [
        Lines(commands),
        Table(["", ""], facts, "ll", ""),
        Text("The shrinkage budget of a λ is λ·Σlr/(1 − momentum), summed over all optimiser steps: the distance that the penalty alone can "
             "move a γ. It is what makes runs of different length and learning rate comparable; the paper starts γ at 0.5."),
        Table([*own, "λ", "shrinkage budget"], budget_rows, "l" * len(own) + "lr", "In units of γ."),
        _stage_table(records),
    ])  # fmt: skip


def _distinct_records(jobs: Sequence[Record]) -> list[tuple[str, Record, Record]]:
    """(stage, record, a job that uses it), every record once though jobs share trainings."""
    found = {}
    for stage in ("train", "slim", "finetune"):
        for job in jobs:
            if job[stage]:
                found.setdefault(job[stage]["name"], (stage, job[stage], job))
    return list(found.values())


def _schedule(record: Record) -> str:
    epochs = record["epochs"]
    rates = [epoch["lr"] for epoch in epochs if "lr" in epoch]
    return f"{len(epochs)} epochs" + (f", learning rate {rates[0]:g} to {rates[-1]:g}" if rates else "")


def _stage_table(records: Sequence[tuple[str, Record, Record]]) -> Table:
    rows = []
    for stage, record, job in records:
        ratio = formats.NONE if stage == "train" else formats.ratio(job["ratio"])
        epochs = str(len(record["epochs"])) if "epochs" in record else formats.NONE
        run = record["run"]
        rows.append([stage, formats.strength(job["lambda"]), ratio, str(job["seed"]), epochs, formats.duration(run["seconds"]), run["started"]])
    folded = f"Wall-clock of all {len(rows)} stages" if len(rows) > 20 else ""
    head = ["stage", "λ", "ratio", "seed", "epochs", "wall-clock", "started"]
    return Table(head, rows, "llrrrrr", "Jobs of one λ and seed share their training.", folded=folded, grouped=True)
