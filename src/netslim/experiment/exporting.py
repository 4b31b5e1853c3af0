"""``export=[onnx,pt2]``: the small network as files for use without netslim, and what it costs beside the dense one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from netslim.experiment.findings import Costs, ExportRecord, File
from netslim.experiment.job import Job
from netslim.experiment.measurements import Test
from netslim.experiment.networks import example_of, network_after
from netslim.experiment.records import FinetuneRecord, SlimRecord, TrainRecord
from netslim.experiment.stage import Finished, Stage
from netslim.measure.cost import count
from netslim.measure.export import export
from netslim.measure.latency import latency

log = logging.getLogger("netslim")

SECONDS = 1.0  # for each latency


def exporting(job: Job, stages: Sequence[Stage]) -> Stage:
    """Write the network that the last of these stages leaves, in each of the job's formats."""
    names = tuple(stage.name for stage in stages)
    settings = {"formats": list(job.export), "network": names[-1]}
    labels = {"lambda": job.strength, **job.amount, "seed": job.seed}
    return Stage("export", names, settings, partial(_export, job), labels, ExportRecord)


def _export(job: Job, folder: Path, done: Mapping[str, Finished]) -> ExportRecord:
    images = job.data(seed=job.seed)
    dense, small = job.network(num_classes=images.num_classes).eval(), network_after(job, images, done.values()).eval()
    example = example_of(images, small)
    written = export(small, example, folder, job.export)
    files = [File(format=f.format, name=f.path.name, runtime=f.runtime, deviation=f.deviation) for f in written]
    before, after = _tests([finished.record for finished in done.values()])
    threads = latency(small, example, seconds=0).threads
    record = ExportRecord(
        dense=_costs(dense, example, before), small=_costs(small, example, after), threads=threads, files=files
    )
    log.info("%s\n%s", folder.name, told(record, folder))
    return record


def _tests(records: Sequence[object]) -> tuple[Test, Test]:
    """Of the dense network, and of the last one."""
    cuts = [record for record in records if isinstance(record, SlimRecord)]
    trained = [record for record in records if isinstance(record, (TrainRecord, FinetuneRecord))]
    before = cuts[0].dense.test if cuts else trained[0].test
    return before, trained[-1].test if len(trained) > 1 or not cuts else cuts[-1].recalibrated.test


def _costs(network: nn.Module, example: object, test: Test) -> Costs:
    size = count(network, example)
    return Costs(
        params=size.params, macs=size.macs, latency=latency(network, example, seconds=SECONDS).median, test=test
    )


def told(record: ExportRecord, folder: Path) -> str:
    """The table that a command with ``export`` ends in: the dense network, the small one, how many times less."""
    dense, small = record.dense, record.small
    faster = dense.latency / small.latency
    rows = [
        ("parameters", f"{dense.params:,}", f"{small.params:,}", dense.params / small.params),
        ("multiply-adds", f"{dense.macs:,}", f"{small.macs:,}", dense.macs / small.macs if small.macs else 1.0),
        (f"ms ({record.threads} threads)", f"{dense.latency:.2f}", f"{small.latency:.2f}", faster),
    ]
    lines = [f"{'':<16}{'dense':>16}{'slim':>16}{'times':>8}"]
    lines += [f"{name:<16}{before:>16}{after:>16}{times:>8.2f}" for name, before, after, times in rows]
    lines.append(f"{'test':<16}{dense.test.score:>16.4f}{small.test.score:>16.4f}")
    lines += [f"{folder / file.name} ({file.runtime}, off by {file.deviation:.0e} at most)" for file in record.files]
    if faster <= 1:
        lines.append("the slim network is not faster here: try slimming.round_to=auto, or a deeper cut")
    return "\n".join(lines)
