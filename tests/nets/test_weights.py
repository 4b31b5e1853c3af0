"""Weights from files that others wrote. Oracle: the outputs of the network that they were saved from."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from netslim.nets import VGG
from netslim.nets.weights import load_weights

X = torch.randn(2, 3, 8, 8)


def vgg(classes=4, layers=(4, "M", 6)):
    return VGG(list(layers), num_classes=classes).eval()


@pytest.fixture
def trained():
    torch.manual_seed(1)
    network = vgg()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    return network


SAVED = {
    "state_dict": lambda state: state,
    "of DataParallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "of Lightning": lambda state: {
        "state_dict": {**{f"network.{name}": tensor for name, tensor in state.items()}, "loss.weight": torch.ones(3)},
        "epoch": 3,
        "optimizer_states": [{"lr": 0.1}],
    },
    "compiled, under model": lambda state: {"model": {f"model._orig_mod.{name}": t for name, t in state.items()}},
    "half": lambda state: {name: t.half().float() for name, t in state.items()},
    "without counters": lambda state: {name: t for name, t in state.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("how", SAVED)
def test_what_was_saved_is_loaded(how, trained, tmp_path):
    torch.save(SAVED[how](trained.state_dict()), tmp_path / "trained.pt")
    network = vgg()
    assert load_weights(network, tmp_path / "trained.pt", 4) == []
    tolerance = 1e-2 if how == "half" else 0
    torch.testing.assert_close(network(X), trained(X), rtol=tolerance, atol=tolerance)


def test_safetensors(trained, tmp_path):
    save_file({f"model.{name}": tensor for name, tensor in trained.state_dict().items()}, tmp_path / "t.safetensors")
    network = vgg()
    assert load_weights(network, tmp_path / "t.safetensors", 4) == []
    torch.testing.assert_close(network(X), trained(X), rtol=0, atol=0)


def test_a_head_for_other_classes_is_new(trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    network = vgg(classes=7)
    before = copy.deepcopy(network.classifier.state_dict())
    assert load_weights(network, tmp_path / "trained.pt", 7) == ["classifier.weight", "classifier.bias"]
    torch.testing.assert_close(network.features(X), trained.features(X), rtol=0, atol=0)
    torch.testing.assert_close(dict(network.classifier.state_dict()), dict(before), rtol=0, atol=0)


MISFITS = {
    "wider": ((4, "M", 8), 4, r"features.4.weight is \(6, 4, 3, 3\) in the file, \(8, 4, 3, 3\) in the network; "
              r"features.5.weight is \(6,\) in the file, \(8,\) in the network; .*; and \d+ more"),
    "deeper": ((4, "M", 6, 6), 4, r"does not fit VGG: features.7.weight is missing in the file; "),
    "shallower": ((4,), 4, r"features.4.weight is in the file alone"),
}  # fmt: skip


@pytest.mark.parametrize("how", MISFITS)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(how, trained, tmp_path):
    layers, classes, match = MISFITS[how]
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    network = vgg(classes, layers)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=match):
        load_weights(network, tmp_path / "trained.pt", classes)
    torch.testing.assert_close(dict(network.state_dict()), dict(before), rtol=0, atol=0)


class Malicious:
    def __reduce__(self):
        return print, ("ran",)


UNFIT = {
    "a module": (lambda network: network, r"holds objects of netslim.nets.vgg.VGG, which would run code; save its"),
    "code": (lambda network: {"state_dict": Malicious()}, "holds objects of print, which would run code"),
    "numbers": (lambda network: {"epoch": 3}, "holds no tensors by name; save its weights alone"),
    "a tensor": (lambda network: torch.ones(3), "holds no tensors by name"),
    "slim": (lambda network: {"format": "netslim 1", "plan": "{}", "state": {}}, "is a slim network; give"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_files_that_are_no_weights_are_refused_in_one_line(what, trained, tmp_path, capsys):
    content, match = UNFIT[what]
    torch.save(content(trained), tmp_path / "trained.pt")
    with pytest.raises(ValueError, match=match) as refused:
        load_weights(vgg(), tmp_path / "trained.pt", 4)
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        load_weights(vgg(), tmp_path / "missing.pt", 4)
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("these are no weights")
        with pytest.raises(ValueError, match=f"{name} cannot be read") as refused:
            load_weights(vgg(), tmp_path / name, 4)
        assert len(str(refused.value)) < len(str(tmp_path)) + 120
        assert "weights_only" not in str(refused.value)  # torch's advice would run code
    (tmp_path / "script.pt").write_bytes(b"")
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"script\.pt is a TorchScript archive; save its"):
        load_weights(vgg(), tmp_path / "script.pt", 4)
