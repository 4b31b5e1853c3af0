"""What an evaluation of a classifier adds up, as a torchmetrics Metric: right over uneven batches and processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

CLASSES = 4096  # of more classes some count as one


class Scores(Metric):
    """Mean loss and accuracy over images, how many are classified correctly, and into how many classes they are put.

    >>> scores = Scores()
    >>> scores.update(torch.tensor(0.5), torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([7, 7, 2, 7]))
    >>> scores.update(torch.tensor(1.0), torch.tensor([0.0]), torch.tensor([2]))
    >>> {name: round(value.item(), 3) for name, value in scores.compute().items()}
    {'loss': 0.6, 'accuracy': 0.6, 'correct': 3.0, 'total': 5.0, 'predicted': 2.0}
    """

    loss: Tensor
    accuracy: Tensor
    correct: Tensor
    total: Tensor
    classes: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("loss", "accuracy", "correct", "total"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("classes", torch.zeros(CLASSES), dist_reduce_fx="sum")  # of a size that all processes know

    def update(self, loss: Tensor, correct: Tensor, predicted: Tensor) -> None:
        """Add a batch of N images.

        Args:
            loss: its mean, 0-d.
            correct: (N,), 1.0 for each image that is classified correctly, else 0.0.
            predicted: (N,), the class that each is put into.
        """
        loss = loss.to(torch.promote_types(loss.dtype, torch.float32))
        self.loss = self.loss + loss * len(correct)  # no +=: a loss in float64 is added up in float64
        self.accuracy = self.accuracy + correct.mean() * len(correct)
        self.correct = self.correct + correct.sum()
        self.total = self.total + len(correct)
        self.classes = self.classes.index_fill(0, predicted.remainder(CLASSES), 1.0)

    def compute(self) -> dict[str, Tensor]:
        means = {"loss": self.loss / self.total, "accuracy": self.accuracy / self.total}
        predicted = (self.classes > 0).sum().float()
        return {**means, "correct": self.correct, "total": self.total, "predicted": predicted}
