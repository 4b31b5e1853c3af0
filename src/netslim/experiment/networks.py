"""The network that finished stages left in their folders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from netslim import files
from netslim.engine import score_channels
from netslim.engine.cut import plan
from netslim.experiment.job import Job
from netslim.experiment.records import TrainRecord
from netslim.experiment.stage import Finished
from netslim.method.scores import Scores, needs_connections, needs_labels
from netslim.nets.weights import load_weights
from netslim.slim_file import load, save

Read = TypeVar("Read")
log = logging.getLogger("netslim")


def dense_network(job: Job, num_classes: int) -> nn.Module:
    """The network that the job's training starts from: new, or with the weights that the job names.

    Raises:
        ValueError: the weights do not fit.
    """
    network = job.network(num_classes=num_classes)
    if job.weights is not None:
        head = load_weights(network, Path(job.weights), num_classes)
        new = f"; {', '.join(head)} of another number of classes: new, for {num_classes}" if head else ""
        log.info("weights of %s%s", job.weights, new)
        if head and not job.epochs:
            log.warning(
                "epochs=0 trains no new head: until it is fine-tuned the network guesses; give epochs=1 or more"
            )
    return network


def network_after(job: Job, images: Any, done: Iterable[Finished]) -> nn.Module:
    """The network as the last of these stages left it: built and trained, or a cut of that.

    Args:
        images: the data module, which tells the number of classes.
        done: the training, and the slim stages and trainings after it.

    Raises:
        ValueError: a file is missing or damaged, or the code of the network has changed since.
    """
    trained, *rounds = done
    dense = job.network(num_classes=images.num_classes)
    if rounds or _is_small(trained):  # also the plan of a second round is one of the dense network
        return _whole([trained, *rounds][-1].folder, "slim.pt", lambda path: load(path, dense))
    weights = _whole(trained.folder, "weights.pt", files.read_tensors)
    try:
        dense.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{trained.folder / 'weights.pt'} does not fit {type(dense).__name__}, whose code has changed since it was "
            f"trained; remove the folder {trained.folder} to train anew ({error})"
        ) from None
    return dense


def _is_small(trained: Finished) -> bool:
    """Whether the network got smaller inside its training."""
    return isinstance(trained.record, TrainRecord) and trained.record.cut is not None


def save_slim(network: nn.Module, folder: Path) -> None:
    """In float32, as ``network_after`` reads it: the trainer's precision may have changed the network."""
    save(network.float(), folder / "slim.pt")


def save_network(network: nn.Module, folder: Path) -> None:
    """``save_slim`` of a network that was cut; the weights of another."""
    if hasattr(network, plan.ATTRIBUTE):
        save_slim(network, folder)
    else:
        files.write_tensors(folder / "weights.pt", network.state_dict())


def example_of(images: Any, network: nn.Module) -> Any:
    """One input of the network: of the shape that the data module tells, else the first of its training batches."""
    if hasattr(images, "image_shape"):
        return torch.zeros(1, *images.image_shape)
    images.prepare_data()
    images.setup("fit")
    return next(inputs(images, network, 1))[:1]


def _whole(folder: Path, name: str, read: Callable[[Path], Read]) -> Read:
    """Read a file of a finished stage; one that is damaged is made anew with its folder."""
    try:
        return read(require_file(folder, name))
    except files.DamagedFile as error:
        remedy = f"remove the folder {folder} and run the command again"
        raise ValueError(f"{error.path} cannot be read ({error.reason}); {remedy}") from None


def require_file(folder: Path, name: str) -> Path:
    """A file of a finished stage.

    Raises:
        ValueError: it is not there any more.
    """
    if not (folder / name).exists():
        raise ValueError(f"{folder / name} is missing; remove the folder {folder} and give the command again")
    return folder / name


def scores_of(job: Job, network: nn.Module, images: Any) -> Scores:
    """What the job's score says of a network, on the first training batches if it looks at data."""
    assert job.score is not None
    example = example_of(images, network) if needs_connections(job.score) else None
    batches = inputs(images, network, labels=needs_labels(job.score)) if job.score.needs_data else ()
    return score_channels(network, job.score, example, batches, job.seed)


def inputs(images: Any, network: nn.Module, batches: int = 100, *, labels: bool = False) -> Iterator[Any]:
    """What the network takes of the first training batches, for a score that looks at data; or a list with labels."""
    device = next(network.parameters()).device
    for given in islice(images.train_dataloader(), batches):
        batch = images.on_after_batch_transfer(images.transfer_batch_to_device(given, device, 0), 0)
        several = isinstance(batch, (tuple, list))
        yield list(batch) if labels and several else batch[0] if several else batch
