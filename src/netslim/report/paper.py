"""The paper's networks on CIFAR-10: what the paper and its authors' README report, beside what was recorded here.

python -m netslim.report.paper outputs/published      prints the table of outputs/published
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netslim.experiment import paths
from netslim.experiment.records import FinishedJob
from netslim.report.formats import percent, ratio
from netslim.report.results import STAGES, mean_std, tests

HEAD = (
    *("network", "removed", "whose", "data", "n", "dense", "after pruning", "after recalibration"),
    *("after fine-tuning", "parameters", "MACs"),
)
NONE = ""


@dataclass(frozen=True)
class Published:
    """Accuracies in % and sizes in millions as published; "" where they are not.

    Paper: 100 minus the error of table 1; MACs as half of its FLOPs (its exact convention is not known). README: of the
    authors' PyTorch code.
    """

    network: str  # our class
    name: str
    ratio: float
    paper: Sequence[str]  # dense, fine-tuned, parameters, MACs
    readme: Sequence[str]  # dense (trained with sparsity), after pruning, fine-tuned, parameters


PUBLISHED = (
    Published("VGG", "VGG-19", 0.7, ("93.66", "93.80", "2.30", "196"), ("93.30", "32.54", "93.78", "2.25")),
    Published("PreResNet", "ResNet-164", 0.4, ("94.58", "94.92", "1.44", "190"), ("94.76", "94.58", "95.05", "1.45")),
    Published("PreResNet", "ResNet-164", 0.6, ("94.58", "94.73", "1.10", "138"), (NONE, "47.73", "93.81", "1.12")),
    Published("DenseNet", "DenseNet-40", 0.4, ("93.89", "94.81", "0.66", "190"), ("94.17", "94.16", "94.32", "0.69")),
    Published("DenseNet", "DenseNet-40", 0.6, (NONE,) * 4, (NONE, "89.46", "94.22", "0.49")),
)
EXPERIMENTS = {"VGG": "paper_vgg19", "PreResNet": "paper_resnet164", "DenseNet": "paper_densenet40"}


def table(published: Path) -> str:
    """The Markdown table, from the records in ``<published>/<experiment>/records``; cells stay empty without them."""
    lines = [HEAD, ("---", *["---:"] * (len(HEAD) - 1))]
    for row in PUBLISHED:
        first = (row.name, ratio(row.ratio))
        dense, tuned, params, macs = row.paper
        lines.append((*first, "paper", "CIFAR-10", NONE, dense, NONE, NONE, tuned, _million(params), _million(macs)))
        dense, pruned, tuned, params = row.readme
        lines.append((*first, "authors' README", "CIFAR-10", NONE, dense, pruned, NONE, tuned, _million(params), NONE))
        folder = published / EXPERIMENTS[row.network] / "records"
        jobs = [job for job in paths.load_jobs(folder) if job.ratio == row.ratio] if folder.is_dir() else []
        sets = sorted({job.train.data for job in jobs}) or [NONE]
        for data in sets:
            lines.append((*first, "ours", *ours([job for job in jobs if job.train.data == data])))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ours(jobs: Sequence[FinishedJob]) -> tuple[str, ...]:
    """The cells from "data" on: mean ± sample standard deviation over the seeds, empty for no jobs."""
    if not jobs:
        return (NONE,) * (len(HEAD) - 3)
    found = [[test.score for job in jobs if (test := tests(job).get(stage))] for stage in STAGES if stage in HEAD]
    accuracies = [percent(mean_std(scores)) if scores else NONE for scores in found]
    smalls = [job.cut.small for job in jobs]
    sizes = [mean_std(small.params / 1e6 for small in smalls), mean_std(small.macs / 1e6 for small in smalls)]
    texts = [_million(f"{size.mean:.{digits}f}") for size, digits in zip(sizes, (2, 0), strict=True) if size]
    return (jobs[0].train.data, str(len(jobs)), *accuracies, *texts)


def _million(text: str) -> str:
    return f"{text} M" if text else NONE


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
