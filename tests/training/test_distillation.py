"""The loss of a fine-tuning with a teacher. Oracles: the formula by hand, a plain loop in float64, training without."""

from __future__ import annotations

import copy
from functools import partial
from math import exp, log

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from netslim.training.classification import SlimmingTask
from netslim.training.distillation import Distillation

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(2)
    images = [torch.randn(6, 2, 4, 4, generator=draw, dtype=torch.float64) for _ in range(4)]
    return [(each, torch.randint(3, (6,), generator=draw)) for each in images]


def fitted(distillation: Distillation | None, epochs: int = 2, compile=None, **trainer):
    task = SlimmingTask(network(1), optimizer=SGD, distillation=distillation, compile=compile)
    runner = Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", **{"precision": "64-true", **trainer},
    )  # fmt: skip
    runner.fit(task, DataLoader(batches(), batch_size=None))
    return task, runner


class Fixed(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[2.0, 0.0], [0.0, 1.0]])


def test_the_formula_by_hand():
    learn = Distillation(Fixed(), share=0.25, temperature=2.0)
    p, q = exp(1) / (exp(1) + 1), exp(0.5) / (exp(0.5) + 1)  # teacher, temperature 2: class 0 of image 0, 1 of image 1
    first = p * log(p / 0.5) + (1 - p) * log((1 - p) / 0.5)  # the student is undecided
    second = q * log(q / 0.8) + (1 - q) * log((1 - q) / 0.2)  # and sure of class 1 with 4 : 1
    logits = torch.tensor([[0.0, 0.0], [0.0, 2 * log(4)]])
    found = learn(torch.zeros(2, 1), logits, torch.tensor(3.0)).item()
    assert found == pytest.approx(0.75 * 3 + 0.25 * 4 * (first + second) / 2, rel=1e-6)


def test_a_training_is_a_plain_loop_with_the_formula():
    teacher, student = network(5), network(1).train()
    teacher[1].running_mean.uniform_(-1, 1)
    frozen = copy.deepcopy(teacher).eval()
    sgd, losses = SGD(student.parameters()), []
    for _ in range(2):
        for images, labels in batches():
            wanted = (frozen(images) / 3).softmax(1).detach()
            logits = student(images)
            apart = (wanted * (wanted.log() - (logits / 3).log_softmax(1))).sum(1).mean()
            loss = F.cross_entropy(logits, labels)
            losses.append(loss.item())
            sgd.zero_grad()
            (0.3 * loss + 0.7 * 9 * apart).backward()
            sgd.step()
    task, trainer = fitted(Distillation(teacher, share=0.7, temperature=3.0))
    for name, expected in student.state_dict().items():
        torch.testing.assert_close(task.network.state_dict()[name], expected)
    assert float(trainer.callback_metrics["loss/train"]) == pytest.approx(sum(losses[-4:]) / 4)  # of the labels
    for name, expected in frozen.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], expected)
    assert not teacher.training


def test_a_share_of_0_changes_no_bit_and_no_teacher_is_in_a_checkpoint(tmp_path):
    plain, _ = fitted(None)
    same, trainer = fitted(Distillation(network(5), share=0.0))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert list(saved) == list(plain.state_dict())
    assert all(torch.equal(saved[name], tensor) for name, tensor in plain.state_dict().items())
    assert sum(p.numel() for p in same.parameters()) == sum(p.numel() for p in plain.parameters())


def test_mixed_precision_is_near_and_a_compiled_network_the_same():
    full, _ = fitted(Distillation(network(5), share=0.7), epochs=1, precision="32-true")
    mixed, _ = fitted(Distillation(network(5), share=0.7), epochs=1, precision="bf16-mixed")
    for name, expected in full.state_dict().items():
        torch.testing.assert_close(mixed.state_dict()[name], expected, rtol=0.1, atol=0.05)
    learn = Distillation(network(5), share=0.7)
    compiled, _ = fitted(learn, epochs=1, precision="32-true", compile={"backend": "eager"})
    assert all(torch.equal(compiled.state_dict()[name], expected) for name, expected in full.state_dict().items())


@pytest.mark.parametrize(("share", "temperature"), [(-0.1, 4), (1.1, 4), ("0.7", 4), (0.7, 0), (0.7, float("inf"))])
def test_numbers_that_cannot_be_are_refused(share, temperature):
    with pytest.raises(
        ValueError, match=r"it must be (at least 0 \(none\) and at most 1, such as 0.7|over 0, such as 4)"
    ):
        Distillation(nn.Linear(1, 1), share, temperature)
