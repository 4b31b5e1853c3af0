"""``scan=true``: before the cut, the accuracy of every ratio and without the weaker half of every layer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from netslim.experiment.findings import ScannedPoint, ScanRecord
from netslim.experiment.job import Job
from netslim.experiment.networks import example_of, inputs, network_after, scores_of
from netslim.experiment.records import TARGETS
from netslim.experiment.stage import Finished, Stage
from netslim.measure.scan import scan

log = logging.getLogger("netslim")

BATCHES = 50  # of the validation split, at most; and of the training data, for the statistics


def scanning(job: Job, stages: Sequence[Stage]) -> Stage:
    """Scan the network that the first of these stages has trained."""
    trained = stages[0]
    settings = {**job.settings["slim"], "train": trained.name}
    return Stage("scan", (trained.name,), settings, partial(_scan, job), dict(trained.labels), ScanRecord)


def check_scan(job: Job, images: Any) -> None:
    """Refuse, before the training, where there is nothing to scan with.

    Raises:
        ValueError: there is no validation data; the test set is not for choosing.
    """
    if job.scan and not images.val_dataloader():
        raise ValueError("scan=true needs validation data, and there is none; set data.val_size=0.1")


def _scan(job: Job, folder: Path, done: Mapping[str, Finished]) -> ScanRecord:
    images = job.data(seed=job.seed)
    network = network_after(job, images, done.values())
    example = example_of(images, network)
    images.prepare_data()
    images.setup("fit")
    score = {"score": scores_of(job, network, images)} if job.score else {}
    amount = {"ratio", *TARGETS, "latency"}
    options = {key: value for key, value in job.slimming(**job.amount).options.items() if key not in amount}
    statistics = list(inputs(images, network, BATCHES))
    found = scan(network, example, _labelled(images, network), recalibration=statistics, **{**options, **score})
    log.info("%s | validation data, statistics re-estimated\n%s", folder.name, found)
    return ScanRecord(
        accuracy=found.accuracy,
        points=[ScannedPoint(**vars(point)) for point in found.points],
        layers=found.layers,
    )


def _labelled(images: Any, network: nn.Module) -> Iterator[Any]:
    """Validation batches with their labels, as the network takes them."""
    device = next(network.parameters()).device
    for given in islice(images.val_dataloader(), BATCHES):
        yield list(images.on_after_batch_transfer(images.transfer_batch_to_device(given, device, 0), 0))
