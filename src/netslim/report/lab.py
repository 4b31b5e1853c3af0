"""The sections of the lab, in its order and under its names, for one part of a sweep."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from netslim.report import figures, formats
from netslim.report.document import Block, Lines, Picture, Section, Table, Text, slug
from netslim.report.results import (
    SMALL,
    STAGES,
    Part,
    Record,
    Spread,
    accuracy,
    curve,
    curve_metric,
    scales,
    share_under,
    spread,
)

METRIC = {
    "val_accuracy": ("validation accuracy", "Accuracy on the validation split after every epoch; the test set is not used for it."),
    "train_accuracy": ("training accuracy", "Training accuracy of every epoch: there is no validation split, and the test set is only measured at the last epoch."),
}  # fmt: skip


def sections(part: Part) -> list[Section]:
    """All sections of one part; titles and file names carry its label when there are several parts."""
    found = [sparsity_training(part), *distributions(part), *(prune_ratio(part, ratio) for ratio in part.ratios)]
    found += [fine_tuning(part), cost(part)]
    return [Section(f"{s.title} ({part.label})" if part.label else s.title, s.blocks) for s in found]


def seeds_note(ns: Iterable[int]) -> str:
    """What n the numbers of a table or figure stand for."""
    low, high = min(found := set(ns)), max(found)
    if high == 1:
        return "One run each (n = 1), so the spread between runs is not known."
    many = f"{low}" if low == high else f"{low} to {high}"
    return f"Mean ± sample standard deviation over n = {many} seeds{' (no ± where n = 1)' if low == 1 else ''}."


def _file(part: Part, name: str) -> str:
    return "-".join(filter(None, (slug(part.label), name))) + ".png"


def _percents(values: dict[float, Spread | None]) -> str:
    """'93.10 % for λ = 0 and 92.80 % for λ = 1e-4'."""
    return formats.listing([f"{formats.percent(s)} % for {figures.label(strength)}" for strength, s in values.items() if s])


def sparsity_training(part: Part) -> Section:
    trained = {strength: part.trained(strength) for strength in part.lambdas}
    metric = curve_metric([record for records in trained.values() for record in records])
    name, how = METRIC[metric]
    lines = {strength: curve(records, metric) for strength, records in trained.items()}
    last = {strength: values[-1] for strength, (_, values) in lines.items() if values}
    rows = []
    for strength, records in trained.items():
        ends = [record["epochs"][-1] for record in records]
        cells = [spread(end[key] for end in ends if key in end) for key in ("train_accuracy", "val_accuracy")]
        cells.append(spread(accuracy(record["test"]) for record in records))
        cells += [spread(share_under(record, bound) for record in records) for bound in SMALL]
        rows.append([formats.strength(strength), *map(formats.percent, cells), str(len(records))])
    note = seeds_note(len(records) for records in trained.values())
    head = ["λ", "training", "validation", "test", *(f"|γ| < {formats.strength(bound)}" for bound in SMALL), "n"]
    png = figures.curves({"": lines}, ylabel=f"{name}, %")
    return Section("Sparsity Training Accuracy over Epochs", [
        Text("Look for what the penalty costs while it acts: a curve of λ > 0 that stays close to λ = 0 has found its sparsity for "
             f"free, one that falls behind has paid for it. At the last epoch the {name} is {_percents(dict(last))}."),
        Text("In the paper: equation 1, and “Training with Sparsity” in section 4.3.", quiet=True),
        Picture(_file(part, "sparsity-training-accuracy"), png,
                f"Line chart of {name} over epochs, one line per λ. At the last epoch: {_percents(dict(last))}.", f"{how} {note}"),
        Table(head, rows, "l" + "r" * 7, f"At the last epoch, in %: accuracy, and the share of all |γ| under three bounds. {note}"),
    ])  # fmt: skip


def distributions(part: Part) -> list[Section]:
    values = {strength: [scales(record) for record in part.trained(strength)] for strength in part.lambdas}
    values = {strength: runs for strength, runs in values.items() if all(runs)}
    edges = figures.bins([run for runs in values.values() for run in runs])
    tables = {strength: figures.counts(runs, edges) for strength, runs in values.items()}
    top = 2.0 * max((float(table.max()) for table in tables.values()), default=1.0)
    found = []
    for index, strength in enumerate(part.lambdas):
        title = f"Scaling Factor Distribution of {figures.label(strength)}"
        if strength not in values:
            found.append(Section(title, [Text("Left out: the record of this training holds no γ.")]))
            continue
        thresholds = {r: s.mean for r in part.ratios if (s := spread(job["slim"]["threshold"] for job in part.at(strength, r)))}
        png = figures.histogram(tables[strength], edges, thresholds=thresholds, look=figures.style(index, len(part.lambdas)),
                                top=max(top, 10.0))  # fmt: skip
        runs, said = values[strength], _scales_said(part, strength)
        caption = (f"Channels per bin of |γ| over all BatchNorm layers, {len(edges) - 1} bins, on the axes of all λ; counts are "
                   "logarithmic. The lines mark the largest |γ| that each ratio removes. "
                   + ("One run (n = 1)." if len(runs) == 1 else f"Mean count of n = {len(runs)} seeds, bars ± one sample standard deviation."))  # fmt: skip
        found.append(Section(title, [
            Text(f"Look for how much gathers at the left edge: those channels can go at little cost. {said}"),
            Text("In the paper: “Channel Sparsity Regularization” in section 5, figure 4.", quiet=True),
            Picture(_file(part, f"scales-lambda-{formats.strength(strength)}"), png, f"Histogram of |γ| for {figures.label(strength)}. {said}", caption),
        ]))  # fmt: skip
    return found


def _scales_said(part: Part, strength: float) -> str:
    """Number of γ, share near zero, median and largest, against λ = 0 when the sweep has it."""
    records = part.trained(strength)
    runs = [[value for value in scales(record) if value == value] for record in records]
    broken = sum(len(scales(record)) - len(run) for record, run in zip(records, runs, strict=True))
    if not all(runs):
        return "Training diverged: γ is not a number."
    small = formats.percent(spread(share_under(record, 1e-2) for record in records))
    base = part.trained(0.0) if strength else []
    against = f" (λ = 0: {formats.percent(spread(share_under(record, 1e-2) for record in base))} %)" if base else ""
    middle, most = spread(map(median, runs)), spread(map(max, runs))
    assert middle is not None
    assert most is not None
    said = (f"Of the {formats.count(len(scales(records[0])))} |γ|, {small} % are under 1e-2{against}; the median is {middle.mean:.3g} "
            f"and the largest {most.mean:.3g}.")  # fmt: skip
    return said + (f" {broken} γ are not a number and are not drawn." if broken else "")


def _by_stage(part: Part, strength: float, ratio: float) -> dict[str, Spread | None]:
    jobs = part.at(strength, ratio)
    return {stage: spread(accuracy(test) for job in jobs if (test := of(job))) for stage, of in STAGES.items()}


def prune_ratio(part: Part, ratio: float) -> Section:
    lines = {strength: _by_stage(part, strength, ratio) for strength in part.lambdas if part.at(strength, ratio)}
    jobs = [job for job in part.jobs if job["ratio"] == ratio]
    ns = [len(part.at(strength, ratio)) for strength in lines]
    said = f"Look for how far the accuracy falls when the channels go, and how much of it comes back. {_changes(lines)}"
    shown = {figures.label(strength): formats.listing([f"{formats.percent(s)} % {stage}" for stage, s in values.items() if s])
             for strength, values in lines.items()}  # fmt: skip
    blocks: list[Block] = [
        Text(said),
        Text("Recalibration re-estimates the means and variances of BatchNorm on training images; no weight changes. " + _delivered(jobs)),
        Text("In the paper: “Channel Pruning and Fine-tuning” in section 3, table 1, and figure 5. Recalibration is not in the paper.", quiet=True),
        Picture(_file(part, f"test-accuracy-ratio-{100 * ratio:.8g}"), figures.stages(lines),
                f"Test accuracy by stage. {'; '.join(f'{name}: {text}' for name, text in shown.items())}.",
                f"Test accuracy of the last epoch at each stage, at prune ratio {formats.ratio(ratio)}. {seeds_note(ns)}"),
        Lines([line for strength in lines for line in _test_lines(part.at(strength, ratio), part)]),
    ]  # fmt: skip
    if max(ns) > 1:
        rows = [[formats.strength(s), *map(formats.percent, values.values()), str(n)] for (s, values), n in zip(lines.items(), ns, strict=True)]
        blocks.append(Table(["λ", *STAGES, "n"], rows, "lrrrrr", f"Test accuracy in %. {seeds_note(ns)}"))
    return Section(f"Test Accuracy with Prune Ratio {formats.ratio(ratio)}", blocks)


def _changes(lines: dict[float, dict[str, Spread | None]]) -> str:
    """How far each λ is from its dense network right after pruning and at the end, in points."""
    sentences = []
    for stage in ("after pruning", "after fine-tuning"):
        changes = [
            f"{formats.points(now.mean - dense.mean)} for {figures.label(strength)}"
            for strength, values in lines.items()
            if (dense := values["dense"]) and (now := values[stage])
        ]
        if changes:
            sentences.append(f"{stage} it is {formats.listing(changes)}")
    return f"In points of test accuracy against the dense network, {'; '.join(sentences)}."


def _delivered(jobs: list[Record]) -> str:
    pairs = sorted({(job["slim"]["removed"], job["slim"]["prunable"]) for job in jobs})
    told = [f"{formats.count(gone)} of {formats.count(all_)} prunable channels ({100 * gone / all_:.2f} %)" for gone, all_ in pairs]
    return f"Asked: {formats.ratio(jobs[0]['ratio'])}; removed: {formats.listing(told)}."


def _test_lines(jobs: list[Record], part: Part) -> list[str]:
    lines = []
    for job in jobs:
        seed = f", seed {job['seed']}" if len(part.seeds) > 1 else ""
        lines.append(f"{figures.label(job['lambda'])}{seed}")
        for stage, of in STAGES.items():
            test = of(job)
            lines.append(f"  {stage:<20} {formats.test_line(test) if test else 'not run'}")
    return lines


def fine_tuning(part: Part) -> Section:
    title = "Fine Tuning Accuracy over Epochs"
    records = {r: {s: found for s in part.lambdas if (found := part.finetunings(s, r))} for r in part.ratios}
    records = {ratio: lines for ratio, lines in records.items() if lines}
    if not records:
        return Section(title, [Text("Left out: this sweep was run without fine-tuning.")])
    metric = curve_metric([record for lines in records.values() for found in lines.values() for record in found])
    name, how = METRIC[metric]
    panels = {f"Prune ratio {formats.ratio(r)}": {s: curve(found, metric) for s, found in lines.items()} for r, lines in records.items()}
    ends = {title: {s: values[-1] for s, (_, values) in lines.items() if values} for title, lines in panels.items()}
    said = "; ".join(f"{title.lower()}: {_percents(dict(last))}" for title, last in ends.items())
    note = seeds_note(len(found) for lines in records.values() for found in lines.values())
    return Section(title, [
        Text("Look for where each curve levels off: a narrow network that ends on the height of the wide one has lost nothing that "
             f"mattered. The {name} at the last epoch, at {said}."),
        Text("In the paper: “Fine-tuning” in section 4.3, the same optimisation setting as in training, here with λ = 0.", quiet=True),
        Picture(_file(part, "fine-tuning-accuracy"), figures.curves(panels, ylabel=f"{name}, %"),
                f"Line charts of {name} over the epochs of fine-tuning. At the last epoch, {said}.", f"{how} {note}"),
    ])  # fmt: skip


def cost(part: Part) -> Section:
    layers = part.jobs[0]["slim"]["layers"]
    names, channels = [layer["name"] for layer in layers], [layer["channels"] for layer in layers]
    pairs = [(r, s) for r in part.ratios for s in part.lambdas if part.at(s, r)]
    kept = {pair: _kept(part.at(pair[1], pair[0])) for pair in pairs}
    panels = {f"Prune ratio {formats.ratio(r)}": {s: [v.mean for v in kept[q, s]] for q, s in pairs if q == r} for r in part.ratios}
    ns = [len(part.at(s, r)) for r, s in pairs]
    ratio, strength = pairs[-1]
    share = [value.mean / width for value, width in zip(kept[pairs[-1]], channels, strict=True)]
    least, most = share.index(min(share)), share.index(max(share))
    said = (f"At {formats.ratio(ratio)} and {figures.label(strength)}, {names[least]} keeps the smallest share, {100 * share[least]:.1f} % of its "
            f"{channels[least]}, and {names[most]} the largest, {100 * share[most]:.1f} % of its {channels[most]}.")  # fmt: skip
    uncounted = sorted({op for job in part.jobs for op in job["slim"].get("uncounted", {})})
    rows = [[formats.ratio(r), formats.strength(s), *_cost_cells(part.at(s, r)), str(n)] for (r, s), n in zip(pairs, ns, strict=True)]
    return Section("Parameters, MACs and Kept Channels per Layer", [
        Text(f"Look for where the threshold cuts: one global threshold takes very different shares from different layers. {said}"),
        Text("In the paper: “Parameter and FLOP reductions” in section 4.4, table 1. One multiply-add is one MAC here; the paper’s FLOPs "
             "are two per MAC, so ratios agree and absolute values do not.", quiet=True),
        Table(["ratio", "λ", "parameters", "left", "MACs", "left", "n"], rows, "llrrrrr",
              f"Dense: {formats.count(part.jobs[0]['slim']['dense']['params'])} parameters and "
              f"{formats.count(part.jobs[0]['slim']['dense']['macs'])} MACs. Left: in % of the dense network. {seeds_note(ns)}"
              + (f" Not counted: {formats.listing(uncounted)}." if uncounted else ""), grouped=True),
        Picture(_file(part, "kept-channels"), figures.kept(names, channels, panels),
                f"Channels kept in each of {len(names)} BatchNorm layers, one panel per ratio and one line per λ. {said}",
                f"Channels that stay in each BatchNorm layer; grey bars are the dense network. {seeds_note(ns)}"),
        _layer_table(names, channels, kept),
    ])  # fmt: skip


def _kept(jobs: list[Record]) -> list[Spread]:
    columns = zip(*([layer["kept"] for layer in job["slim"]["layers"]] for job in jobs), strict=True)
    return [value for column in columns if (value := spread(column))]


def _cost_cells(jobs: list[Record]) -> list[str]:
    cells = []
    for what in ("params", "macs"):
        small = [job["slim"]["slim"][what] for job in jobs]
        left = spread(part / job["slim"]["dense"][what] for part, job in zip(small, jobs, strict=True))
        cells += [formats.count(sum(small) / len(small)), f"{formats.percent(left)} %"]
    return cells


def _layer_table(names: list[str], channels: list[int], kept: dict[tuple[float, float], list[Spread]]) -> Table:
    def cell(value: Spread) -> str:
        return f"{value.mean:.0f}" if value.std is None else f"{value.mean:.1f} ± {value.std:.1f}"

    head = ["layer", "dense", *(f"{formats.ratio(r)}, {figures.label(s)}" for r, s in kept)]
    rows = [[name, str(width), *(cell(values[i]) for values in kept.values())] for i, (name, width) in enumerate(zip(names, channels, strict=True))]
    caption = "Channels that stay in each BatchNorm layer."
    return Table(head, rows, "l" + "r" * (len(head) - 1), caption, folded=f"Kept channels of all {len(names)} layers as a table")
