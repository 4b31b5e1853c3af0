"""Oracles: PyTorch's own schedules, and hand arithmetic."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR

from netslim.training import lr_schedules
from netslim.training.lr_schedules import cosine, multistep, one_cycle, rates, warmup_cosine, warmup_linear


def torchs(make, epochs: int) -> list[float]:
    sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler, found = make(sgd), []
    for _ in range(epochs):
        found.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return found


def test_cosine_is_pytorchs():
    assert rates(cosine, 20, final=0.1) == pytest.approx(
        torchs(partial(CosineAnnealingLR, T_max=20, eta_min=0.1), 20), abs=1e-3
    )


def test_after_the_warm_up_comes_the_cosine():
    assert rates(warmup_cosine, 12, warmup=3) == [0.25, 0.5, 0.75, *rates(cosine, 9)]
    assert rates(warmup_cosine, 12, warmup=0) == rates(cosine, 12)
    assert rates(warmup_cosine, 1) == [1.0]


def test_after_the_warm_up_comes_a_straight_line_to_zero():
    full = torchs(partial(LinearLR, start_factor=1.0, end_factor=1e-9, total_iters=18), 18)
    assert rates(warmup_linear, 20) == pytest.approx([1 / 3, 2 / 3, *full], abs=1e-3)
    assert rates(warmup_linear, 4, warmup=0.0) == [1.0, 0.75, 0.5, 0.25]


def test_one_cycle_is_pytorchs_in_the_middle_of_every_epoch():
    steps = torchs(partial(OneCycleLR, max_lr=1.0, total_steps=1000, cycle_momentum=False), 1000)
    assert rates(one_cycle, 10) == pytest.approx([steps[100 * epoch + 50] for epoch in range(10)], abs=5e-3)


@pytest.mark.parametrize("schedule", [multistep, cosine, warmup_cosine, one_cycle])
@pytest.mark.parametrize("epochs", [1, 2, 3, 160])
def test_every_epoch_of_every_length_trains(schedule, epochs):
    found = rates(schedule, epochs)
    assert all(0 <= rate <= 1 for rate in found)
    assert max(found) > 0.7
    assert sum(found) > 0.35 * epochs


@pytest.mark.parametrize("schedule", [multistep, cosine, warmup_cosine, one_cycle])
def test_a_resumed_schedule_goes_on(schedule, tmp_path):
    def made():
        sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.3)
        return sgd, schedule(sgd, epochs=8)

    (sgd, first), found = made(), []
    for epoch in range(8):
        found.append(sgd.param_groups[0]["lr"])
        if epoch == 3:
            torch.save({"sgd": sgd.state_dict(), "schedule": first.state_dict()}, tmp_path / "last.ckpt")
        sgd.step()
        first.step()
    sgd, second = made()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    sgd.load_state_dict(saved["sgd"])
    second.load_state_dict(saved["schedule"])
    resumed = []
    for _ in range(4):
        sgd.step()
        second.step()
        resumed.append(sgd.param_groups[0]["lr"])
    assert resumed == found[4:]


@pytest.mark.parametrize(
    ("schedule", "settings", "why"),
    [
        (cosine, {"final": 1.0}, r"scheduler\.final=1\.0 is no share"),
        (warmup_cosine, {"warmup": -1}, r"scheduler\.warmup=-1 is no number of epochs"),
        (warmup_cosine, {"warmup": 0.5}, r"scheduler\.warmup=0\.5 is no number of epochs"),
        (one_cycle, {"peak": "half"}, r"scheduler\.peak=half is no share"),
    ],
)
def test_wrong_settings_are_named(schedule, settings, why):
    with pytest.raises(ValueError, match=why):
        rates(schedule, 4, **settings)


def test_the_former_name_of_multistep_is_the_same_function():
    from netslim.schedule import multistep

    assert multistep is lr_schedules.multistep
