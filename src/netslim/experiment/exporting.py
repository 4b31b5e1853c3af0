"""``export=[onnx,pt2]``: the small network as files for use without netslim, and what it costs beside the dense one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from netslim.experiment.findings import Costs, ExportRecord, File
from netslim.experiment.job import Job
from netslim.experiment.measurements import Test
from netslim.experiment.networks import example_of, inputs, network_after
from netslim.experiment.records import FinetuneRecord, SlimRecord, TrainRecord
from netslim.experiment.stage import Finished, Stage
from netslim.measure.compare import beside
from netslim.measure.cost import count
from netslim.measure.export import INT8, Exported, check_formats, export, export_int8
from netslim.measure.latency import in_turns, latency, latency_of

log = logging.getLogger("netslim")

SECONDS = 0.5  # for each latency
CALIBRATION = 8  # training batches that set the ranges of int8, the last to check them


def check(job: Job) -> None:
    """Refuse, before anything is computed, formats that cannot be.

    Raises:
        ValueError: an unknown format, or int8 without the ONNX file that it is made of.
        ModuleNotFoundError: a package that a format needs is not installed.
    """
    check_formats(_formats(job))
    if INT8 in job.export and "onnx" not in job.export:
        raise ValueError("export=int8 makes its file of the ONNX file; write export=[onnx,int8]")


def _formats(job: Job) -> list[str]:
    """Those that a network is written in; int8 is made of a file."""
    return [form for form in job.export if form != INT8]


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
    written = export(small, example, folder, _formats(job))
    if INT8 in job.export:
        written.append(export_int8(small, folder / "slim.onnx", _calibration(images, small)))
    files = [_file(dense, small, example, each) for each in written]
    before, after = _tests([finished.record for finished in done.values()])
    threads = latency(small, example, seconds=0).threads
    times = in_turns([partial(latency, network, example) for network in (dense, small)], seconds=SECONDS)
    costs = _costs(dense, example, times[0], before), _costs(small, example, times[1], after)
    record = ExportRecord(dense=costs[0], small=costs[1], threads=threads, files=files)
    log.info("%s\n%s", folder.name, told(record, folder))
    return record


def _calibration(images: Any, network: nn.Module) -> list[Any]:
    images.prepare_data()
    images.setup("fit")
    return list(inputs(images, network, CALIBRATION))


def _file(dense: nn.Module, small: nn.Module, example: Any, file: Exported) -> File:
    """With its latency, beside the dense network's in the same runtime."""
    runs = beside(dense, small, example, file)
    times = in_turns([partial(latency_of, run, example) for run in runs or ()], seconds=SECONDS)
    latency: dict[Any, float] = dict(zip(("dense", "slim"), times, strict=False))
    return File(
        format=file.format, name=file.path.name, runtime=file.runtime, deviation=file.deviation, latency=latency
    )


def _tests(records: Sequence[object]) -> tuple[Test, Test]:
    """Of the dense network, and of the last one."""
    cuts = [record for record in records if isinstance(record, SlimRecord)]
    trained = [record for record in records if isinstance(record, (TrainRecord, FinetuneRecord))]
    before = cuts[0].dense.test if cuts else trained[0].test
    return before, trained[-1].test if len(trained) > 1 or not cuts else cuts[-1].recalibrated.test


def _costs(network: nn.Module, example: object, ms: float, test: Test) -> Costs:
    size = count(network, example)
    return Costs(params=size.params, macs=size.macs, latency=ms, test=test)


def told(record: ExportRecord, folder: Path) -> str:
    """The table that a command with ``export`` ends in: the dense network, the small one, how many times less; their
    latency in PyTorch and in the runtime of each file."""
    dense, small, times = record.dense, record.small, _times(record)
    rows = [
        ("parameters", f"{dense.params:,}", f"{small.params:,}", dense.params / small.params),
        ("multiply-adds", f"{dense.macs:,}", f"{small.macs:,}", dense.macs / small.macs if small.macs else 1.0),
        *((f"ms, {name}", f"{before:.2f}", f"{after:.2f}", before / after) for name, (before, after) in times.items()),
    ]
    lines = [f"{'':<24}{'dense':>16}{'slim':>16}{'times':>8}"]
    lines += [f"{name:<24}{before:>16}{after:>16}{ratio:>8.2f}" for name, before, after, ratio in rows]
    what, form = ("test accuracy", ".2%") if dense.test.total else ("test", ".4f")
    lines.append(f"{what:<24}{dense.test.score:>16{form}}{small.test.score:>16{form}}")
    bits = "; int8 beside the dense network in 32 bits" * any(file.format == INT8 for file in record.files)
    threads = f"{record.threads} thread" + "s" * (record.threads > 1)
    lines.append(f"ms: one input, {threads}, the median{bits}")
    lines += [f"{folder / file.name} ({file.runtime}, {_off(file)})" for file in record.files]
    if slow := [name for name, (before, after) in times.items() if after >= before]:
        where = ", ".join(slow)
        lines.append(f"the slim network is not faster in {where}: try slimming.round_to=auto, or a deeper cut")
    return "\n".join(lines)


def _off(file: File) -> str:
    return f"off by {file.deviation:.0e} at most" if file.deviation else "equal"


def _times(record: ExportRecord) -> dict[str, tuple[float, float]]:
    """Where it runs -> milliseconds of the dense and of the small network."""
    timed = {file.name: (file.latency["dense"], file.latency["slim"]) for file in record.files if file.latency}
    return {"PyTorch": (record.dense.latency, record.small.latency), **timed}
