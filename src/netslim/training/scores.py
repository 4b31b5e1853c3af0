"""What an evaluation of a classifier adds up, as a torchmetrics Metric: right over uneven batches and processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Scores(Metric):
    """Mean loss and accuracy over images, and how many are classified correctly.

    >>> scores = Scores()
    >>> scores.update(torch.tensor(0.5), torch.tensor([1.0, 0.0, 1.0, 1.0]))
    >>> scores.update(torch.tensor(1.0), torch.tensor([0.0]))
    >>> {name: round(value.item(), 3) for name, value in scores.compute().items()}
    {'loss': 0.6, 'accuracy': 0.6, 'correct': 3.0, 'total': 5.0}
    """

    loss: Tensor
    accuracy: Tensor
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("loss", "accuracy", "correct", "total"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, loss: Tensor, correct: Tensor) -> None:
        """loss: mean over a batch, 0-d. correct: 1.0 for each of its images that is classified correctly, else 0.0."""
        loss = loss.to(torch.promote_types(loss.dtype, torch.float32))
        self.loss = self.loss + loss * len(correct)  # no +=: a loss in float64 is added up in float64
        self.accuracy = self.accuracy + correct.mean() * len(correct)
        self.correct = self.correct + correct.sum()
        self.total = self.total + len(correct)

    def compute(self) -> dict[str, Tensor]:
        means = {"loss": self.loss / self.total, "accuracy": self.accuracy / self.total}
        return {**means, "correct": self.correct, "total": self.total}
