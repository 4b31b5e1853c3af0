"""Networks from the folders of finished stages. Oracle: the network that was put there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import netslim
from netslim import files
from netslim.data import InMemoryData, synthetic
from netslim.experiment.networks import inputs, network_after, save_slim, scores_of
from netslim.experiment.records import StageRecord
from netslim.experiment.stage import Finished
from netslim.nets import VGG

IMAGES = SimpleNamespace(num_classes=4)
EXAMPLE = torch.zeros(1, 1, 8, 8)


def network(num_classes: int, layers: Any = (8, "M", 8)) -> VGG:
    return VGG(layers, in_channels=1, num_classes=num_classes)


JOB: Any = SimpleNamespace(network=network)


@pytest.fixture
def dense(tmp_path: Path) -> VGG:
    """Trained, as the stage train_x left it."""
    network = VGG([8, "M", 8], in_channels=1, num_classes=4)
    with torch.no_grad():
        for bn in netslim.bn_layers(network).values():
            bn.weight.uniform_(0.1, 1)
    files.write_tensors(tmp_path / "train_x" / "weights.pt", network.state_dict())
    return network.eval()


def after(folder: Path, *names: str) -> torch.nn.Module:
    return network_after(JOB, IMAGES, [Finished(folder / name, StageRecord(name=name)) for name in names]).eval()


def test_each_stage_leaves_its_network_two_rounds_too(dense, tmp_path):
    images = torch.randn(5, 1, 8, 8)
    assert torch.equal(after(tmp_path, "train_x")(images), dense(images))
    once = netslim.slim(dense, netslim.select_channels(dense, 0.25, EXAMPLE), example_input=EXAMPLE)
    save_slim(once, tmp_path / "slim_1")
    twice = netslim.slim(once, netslim.select_channels(once, 0.5, EXAMPLE), example_input=EXAMPLE).eval()
    save_slim(twice, tmp_path / "slim_2")
    assert torch.equal(after(tmp_path, "train_x", "slim_1")(images), once.eval()(images))
    found = after(tmp_path, "train_x", "slim_1", "finetune_1", "slim_2")
    assert torch.equal(found(images), twice(images))
    widths = [bn.num_features for bn in netslim.bn_layers(found).values()]
    assert sum(widths) == 6  # of 16: 4 were removed, then half of the 12


def test_damaged_missing_and_foreign_files_name_the_folder_to_remove(dense, tmp_path):
    folder = tmp_path / "train_x"
    whole = (folder / "weights.pt").read_bytes()
    start = whole.index(dense.state_dict()["features.0.weight"].numpy().tobytes())
    (folder / "weights.pt").write_bytes(whole[: start + 3] + bytes([whole[start + 3] ^ 0x40]) + whole[start + 4 :])
    remedy = f"remove the folder {folder} and run the command again"
    with pytest.raises(ValueError, match=r"weights.pt cannot be read \(its bytes are not those that were") as error:
        after(tmp_path, "train_x")
    assert str(error.value).endswith(remedy)
    files.write_tensors(folder / "weights.pt", VGG([4, "M", 8], in_channels=1, num_classes=4).state_dict())
    with pytest.raises(ValueError, match=f"weights.pt does not fit VGG, .* remove the folder {folder} to train anew"):
        after(tmp_path, "train_x")
    (folder / "weights.pt").unlink()
    with pytest.raises(ValueError, match=f"weights.pt is missing; remove the folder {folder}"):
        after(tmp_path, "train_x")


def test_a_score_sees_training_batches_as_the_network_does():
    data = InMemoryData(
        lambda: synthetic(train=20, test=4, size=8), title="x", mean=[0.5] * 3, std=[0.2] * 3, batch_size=8
    )
    given = list(inputs(data, torch.nn.Conv2d(3, 4, 3), batches=2))
    assert [tuple(batch.shape) for batch in given] == [(8, 3, 8, 8)] * 2
    expected = [data.on_after_batch_transfer(batch, 0)[0] for batch in data.train_dataloader()][:2]
    assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))


def test_a_score_gets_the_labels_of_the_training_images_where_it_wants_them(job_of):
    """Oracle: the gradients of the loss on these labels, by backward."""
    job = job_of("score=taylor", "data.batch_size=600")
    images = job.data(seed=0)
    network = job.network(num_classes=10).eval()
    scores = scores_of(job, network, images)
    squares: list[list[torch.Tensor]] = []
    for batch in images.train_dataloader():
        x, labels = images.on_after_batch_transfer(batch, 0)
        network.zero_grad()
        torch.nn.functional.cross_entropy(network(x), labels).backward()
        layers = netslim.bn_layers(network).values()
        squares.append([(b.weight * b.weight.grad + b.bias * b.bias.grad).square().detach() for b in layers])
    expected = [torch.stack(each).mean(0).double() for each in zip(*squares, strict=True)]
    for found, value in zip(scores.value.values(), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-12)
    own = scores_of(job_of("score=taylor", "score.labels=false", "data.batch_size=600"), network, images)
    assert not torch.allclose(own.value["features.1"], scores.value["features.1"])
