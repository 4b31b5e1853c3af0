"""Fine-tuning with a schedule of its own and the dense network as a teacher. Oracle: a plain loop over the batches."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import netslim
from netslim.data import InMemoryData, digits
from netslim.experiment import paths, pipeline
from netslim.files import read_tensors
from netslim.nets import VGG
from netslim.report.results import settings

LAYERS = [8, "M", 8, 4]


def test_a_plain_loop_with_its_rates_and_its_teacher_gives_the_same(tmp_path, job_of):
    words = ["finetune.epochs=2", "finetune.scheduler=warmup_linear", "finetune.distill=0.7", "finetune.temperature=3"]
    pipeline.run(tmp_path, job_of(*words, "finetune.lr=0.05"))
    (job,) = paths.load_jobs(tmp_path)
    network = netslim.load(tmp_path / job.slim.name / "slim.pt", VGG(LAYERS, in_channels=1)).train()
    teacher = VGG(LAYERS, in_channels=1).eval()
    teacher.load_state_dict(read_tensors(tmp_path / job.train.name / "weights.pt"))
    data = InMemoryData(digits, title="d", mean=[0.305], std=[0.375], val_size=0.1, crop_padding=1, seed=0)
    loader = data.train_dataloader()
    sgd = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for epoch, rate in enumerate((0.025, 0.05)):
        loader.sampler.set_epoch(epoch)
        sgd.param_groups[0]["lr"] = rate
        for batch in loader:
            images, labels = data.on_after_batch_transfer(batch, 0)
            logits = network(images)
            with torch.no_grad():
                wanted = (teacher(images) / 3).softmax(1)
            apart = (wanted * (wanted.log() - (logits / 3).log_softmax(1))).sum(1).mean()
            sgd.zero_grad()
            (0.3 * F.cross_entropy(logits, labels) + 0.7 * 9 * apart).backward()
            sgd.step()
    found = netslim.load(tmp_path / job.finetune.name / "slim.pt", VGG(LAYERS, in_channels=1)).state_dict()
    for name, expected in network.state_dict().items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)
    told = settings(job)
    assert {key: told[key] for key in told if key.startswith("finetune.")} == {
        "finetune.lr": 0.05,
        "finetune.epochs": 2,
        "finetune.scheduler": "warmup_linear",
        "finetune.distill": 0.7,
        "finetune.temperature": 3.0,
    }


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("schedule=gradual", r"finetune\.distill: the network gets smaller inside its training, so there is"),
        ("finetune.epochs=0", r"finetune\.distill: there is no fine-tuning that could learn from the dense network"),
    ],
)
def test_a_teacher_or_a_pupil_that_there_is_not_is_refused_before_the_training(word, fault, tmp_path, job_of):
    with pytest.raises(ValueError, match=fault):
        pipeline.run(tmp_path, job_of("finetune.distill=0.7", "controls=[scratch]", word))
    assert not list(tmp_path.glob("*/record.json"))
