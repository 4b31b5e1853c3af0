"""Statistics against their closed form."""

import pytest
import torch
from torch import nn

from netslim.method.recovery import recalibrate, reestimated_statistics


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5), nn.BatchNorm2d(4))


def test_average_of_the_batch_statistics():
    model, batches = network().double(), [torch.randn(n, 3, 5, 5, dtype=torch.float64) for n in (2, 4, 8)]
    parameters = [p.clone() for p in model.parameters()]
    recalibrate(model, batches)
    maps = [model[0](x).transpose(0, 1).flatten(1) for x in batches]
    torch.testing.assert_close(model[1].running_mean, torch.stack([m.mean(1) for m in maps]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([m.var(1) for m in maps]).mean(0))
    # the second BN sees normalised values: dropout did nothing
    torch.testing.assert_close(model[3].running_mean, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(model.parameters(), parameters, strict=True))


def test_modes_momenta_and_hooks_are_restored():
    model = network().train()
    model[2].eval()
    recalibrate(model, [torch.randn(4, 3, 5, 5)])
    assert [m.training for m in model] == [True, True, False, True]
    assert model[1].momentum == 0.3
    assert model[3].momentum == 0.1
    mean = model.eval()[1].running_mean.clone()
    model(torch.randn(4, 3, 5, 5))
    assert torch.equal(model[1].running_mean, mean)


def test_survives_a_loop_that_calls_eval_under_inference_mode():
    """As Lightning's validation loop does."""
    model = network()
    with reestimated_statistics(model):
        model.eval()
        with torch.inference_mode():
            model(10 + torch.randn(4, 3, 5, 5))
    assert model[1].running_mean.abs().max() > 1


def test_unreached_layers_keep_their_statistics():
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
            self.unused.running_mean += 7

        def forward(self, x):
            return self.used(x)

    model = TwoHeads()
    recalibrate(model, [torch.randn(4, 3)])
    assert model.unused.running_mean.tolist() == [7, 7, 7]
    assert int(model.used.num_batches_tracked) == 1


def test_no_batches():
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(network(), [])


def test_error_in_a_batch_leaves_the_model_as_it_was():
    model = network().train()
    before = model[1].running_mean.clone()
    with pytest.raises(RuntimeError):
        recalibrate(model, [torch.randn(4, 5, 5, 5)])
    assert torch.equal(model[1].running_mean, before)
    assert model[1].momentum == 0.3
