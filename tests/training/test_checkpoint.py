"""The checkpoint that a training goes on from: it fits, or the error says what does not."""

import pytest
import torch
from torch import nn

from netslim import files
from netslim.training import checkpoint


def saved(path, module, **changes):
    content = {"epoch": 4, "state_dict": module.state_dict(), "callbacks": {}, "optimizer_states": []}
    checkpoint.AtomicCheckpointIO().save_checkpoint({**content, **changes}, path)
    return path


def test_epochs_are_counted_from_one(tmp_path):
    assert checkpoint.epochs_done(saved(tmp_path / "last.ckpt", nn.Linear(2, 3)), nn.Linear(2, 3)) == 5


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (nn.Linear(2, 4), r"weight is \(3, 2\) there, \(4, 2\) here"),
        (nn.Linear(2, 3, bias=False), r"bias is \(3,\) there, missing here"),
        (nn.Sequential(nn.Linear(2, 3)), r"weight is \(3, 2\) there, missing here"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, other, said):
    with pytest.raises(ValueError, match=said):
        checkpoint.epochs_done(saved(tmp_path / "last.ckpt", nn.Linear(2, 3)), other)


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path):
    path = saved(tmp_path / "last.ckpt", nn.Linear(2, 3))
    with pytest.raises(AttributeError):
        saved(path, nn.Linear(2, 3), callbacks=lambda: None)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(files.read_tensors(path)["state_dict"]["weight"].isfinite(), torch.ones(3, 2, dtype=bool))
