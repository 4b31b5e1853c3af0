"""Fine-tuning that learns from the dense network besides the labels (Hinton, Vinyals, Dean 2015, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netslim.method.threshold import is_number


class Distillation:
    """The loss (1 − a)·L + a·T²·KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over the batch.

    A task that names ``distillation`` among its constructor's arguments gets one; it calls it in its training step. The
    teacher is no part of the task: it is in no checkpoint and no optimiser, and no gradient flows into it.

    Args:
        teacher: maps inputs to logits of the same classes as the student; evaluates from now on.
        share: a, 0 to 1.
        temperature: T, over 0; default 4. A larger one shows more of what the teacher takes for similar.

    Raises:
        ValueError: a share or temperature that is none.

    >>> teacher = nn.Linear(1, 2, bias=False); _ = teacher.weight.data.copy_(torch.tensor([[9.0], [0.0]]))
    >>> learn = Distillation(teacher, share=1.0, temperature=1.0)
    >>> round(learn(torch.ones(1, 1), torch.zeros(1, 2), torch.tensor(5.0)).item(), 3)  # the teacher is nearly sure
    0.692
    """

    def __init__(self, teacher: nn.Module, share: float, temperature: float = 4.0) -> None:
        check_distillation(share, temperature)
        self.teacher, self.share, self.temperature = teacher, share, temperature
        teacher.eval().requires_grad_(requires_grad=False)

    def like(self, parameter: Tensor) -> None:
        """Move the teacher to the device and the precision of a parameter of the student."""
        self.teacher.to(parameter.device, parameter.dtype)

    def __call__(self, inputs: Tensor, logits: Tensor, loss: Tensor) -> Tensor:
        """The loss to train with.

        Args:
            inputs: what the student was given, and the teacher is.
            logits: of the student, shape (N, classes, ...).
            loss: L, that of the labels, 0-d.
        """
        with torch.no_grad():
            wanted = F.log_softmax(self.teacher(inputs) / self.temperature, dim=1)
        found = F.log_softmax(logits / self.temperature, dim=1)
        apart = F.kl_div(found, wanted, log_target=True, reduction="none").sum(dim=1).mean()
        return (1 - self.share) * loss + self.share * self.temperature**2 * apart


def check_distillation(share: object, temperature: object) -> None:
    """Refuse numbers that cannot be.

    >>> check_distillation(1.5, 4)
    Traceback (most recent call last):
    ValueError: distill is 1.5; it must be at least 0 (none) and at most 1, such as 0.7
    """
    if not (is_number(share) and 0 <= share <= 1):  # type: ignore[operator]
        raise ValueError(f"distill is {share}; it must be at least 0 (none) and at most 1, such as 0.7")
    if not (is_number(temperature) and 0 < temperature < float("inf")):  # type: ignore[operator]
        raise ValueError(f"the temperature of distillation is {temperature}; it must be over 0, such as 4")
