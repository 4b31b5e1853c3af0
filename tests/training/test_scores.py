"""Into how many classes a network puts the images of a test. Oracle: a network that says which."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from netslim.training.classification import SlimmingTask
from netslim.training.task import ACCURACY, record_of_test


class Told(nn.Module):
    """Puts an image of one number into the class of that number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * nn.functional.one_hot(images.flatten(1)[:, 0].long(), 10).float()


@pytest.mark.parametrize(("numbers", "classes"), [([3, 3, 3, 3, 3], 1), ([3, 9, 3, 0, 9], 3)])
def test_the_classes_of_all_batches_are_counted_once(numbers: list[int], classes: int) -> None:
    images = torch.tensor(numbers).float().view(-1, 1, 1, 1)
    data = DataLoader(TensorDataset(images, torch.zeros(len(numbers), dtype=torch.long)), batch_size=2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.test(SlimmingTask(Told(), optimizer=partial(torch.optim.SGD, lr=0.1)), data, verbose=False)
    assert record_of_test(trainer.callback_metrics, ACCURACY)["predicted"] == classes
