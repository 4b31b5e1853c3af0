"""What does not fit is refused before the training, and what fits is not. Oracle: PyTorch, which is asked to train."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from netslim.data.order import Batches
from netslim.experiment import checks, stages
from netslim.method.threshold import threshold
from netslim.nets import VGG
from netslim.training.gamma_histogram import GammaHistogram
from netslim.training.gradual import GradualSlimming


def images(size: int, count: int) -> SimpleNamespace:
    return SimpleNamespace(batch_size=size, train_size=count, title="toy", in_channels=1, num_classes=3)


@pytest.mark.parametrize(
    ("size", "count", "smallest"), [(64, 1290, 10), (64, 128, 64), (64, 129, 1), (1, 5, 1), (64, 10, 10), (8, 1, 1)]
)
def test_the_smallest_batch(size, count, smallest):
    assert checks.smallest_batch(images(size, count)) == smallest
    assert min(len(part) for part in torch.arange(count).split(size)) == smallest


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 13, 16, 17, 18])
def test_the_smallest_batch_of_several_processes_is_what_they_get(count, processes):
    """Oracle: the batches themselves."""
    got = [
        len(batch)
        for rank in range(processes)
        for batch in Batches(
            torch.arange(count), batch_size=4, train=True, seed=0, padding=0, flip=False,
            num_replicas=processes, rank=rank,
        )
    ]  # fmt: skip
    assert checks.smallest_batch(images(4, count), processes) == min(got, default=None)


def test_a_data_module_that_does_not_tell_its_sizes_is_not_asked():
    assert checks.smallest_batch(SimpleNamespace(batch_size=None)) is None


NETWORKS = {
    "one pixel": nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)),
    "behind pooling": nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4)),
    "maps": nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_of_one_is_refused_where_pytorch_ends_the_training(name):
    network, example = NETWORKS[name].train(), torch.zeros(1, 1, 8, 8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    try:
        network(example)
        fits = True
    except ValueError:
        fits = False
    network.load_state_dict(before)
    if fits:
        checks.check_single(network, example, images(1, 5))
    else:
        with pytest.raises(ValueError, match=r"data.batch_size=1 of 5 training images makes a batch of one image, of"):
            checks.check_single(network, example, images(1, 5))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.training
    assert fits == (name == "maps")


def test_a_network_with_fewer_outputs_than_classes_is_refused():
    example = torch.zeros(1, 1, 8, 8)
    network = VGG([4, "M", 4], in_channels=1, num_classes=7)
    checks.check_outputs(network, example, 7)
    checks.check_outputs(network, example, 5)  # more outputs than classes can be learned
    with pytest.raises(
        ValueError, match=r"VGG gives \(7,\) numbers per image for 10 classes; it must be made with num_"
    ):
        checks.check_outputs(network, example, 10)
    maps = nn.Conv2d(1, 10, 3)
    with pytest.raises(ValueError, match=r"Conv2d gives \(10, 6, 6\) numbers per image for 10 classes"):
        checks.check_outputs(maps, example, 10)


def test_other_channels_than_the_images_have_are_named():
    with pytest.raises(
        ValueError, match=r"VGG expects 3-channel images, toy has 1; set net.in_channels=1 or another net"
    ):
        checks.check_channels(VGG([4], in_channels=3), images(1, 1))
    checks.check_channels(nn.Linear(3, 3), images(1, 1))


def test_a_callback_that_cuts_inside_a_training_is_refused():
    checks.check_callbacks([GammaHistogram()])
    with pytest.raises(ValueError, match="GradualSlimming makes the network smaller inside a training"):
        checks.check_callbacks([GammaHistogram(), GradualSlimming(ratio=0.5)])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["weights=other.pt"], r"weights=.*other.pt does not fit VGG: features\.0\.weight is missing in the file"),
        (["weights=text.pt"], "weights=.*text.pt cannot be read as tensors"),
        (["optimizer.weight_decay=a"], "^optimizer: .*'str'"),
        (["scheduler=warmup_linear", "scheduler.warmup=a"], "^scheduler: .*warmup=a"),
    ],
)
def test_what_a_training_starts_from_is_tried_with_its_sweep(words, line, job_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(2)}, "other.pt")
    Path("text.pt").write_text("hello")
    with pytest.raises(ValueError, match=line):
        stages.try_out(job_of(*words))


def test_a_floor_by_layer_names_every_layer():
    widths = {"a": torch.tensor([0.1, 0.2]), "b": torch.tensor([0.3, 0.4])}
    with pytest.raises(ValueError, match="floor has no number for layer 'b'; give one for each layer, or one for all"):
        threshold(widths, 0.5, floor={"a": 1})
