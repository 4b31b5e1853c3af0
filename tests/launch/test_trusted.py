"""What the settings of a folder may call. Oracle: a file that the called code would leave behind, and Hydra's own
``instantiate`` for what is allowed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from netslim import files
from netslim.launch import export
from netslim.launch.trusted import construct
from netslim.nets import VGG

MARK = "called"  # the file that must not appear


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(MARK),)


def touch(**_: Any) -> nn.Module:
    Path(MARK).touch()
    return VGG([4], num_classes=2)


BOMB = {"_target_": "torch.load", "f": "bomb.pt", "weights_only": False}
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {  # settings of a network -> the name that is refused
    "plain": (BOMB, "torch.load"),
    "args": ({"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": [MARK]}]}, "pathlib"),
    "argument": ({"_target_": "netslim.nets.VGG", "layers": [4], "in_channels": BOMB}, "torch.load"),
    "list": ({"_target_": "netslim.nets.VGG", "layers": [4, [BOMB]]}, "torch.load"),
    "in args": ({"_target_": "netslim.nets.VGG", "_args_": [[4], BOMB]}, "torch.load"),
    "partial": ({"_target_": "netslim.nets.VGG", "layers": [4], "norm": {**BOMB, "_partial_": True}}, "torch.load"),
    "no target around it": ({"_target_": "netslim.nets.VGG", "layers": {"deep": {"down": BOMB}}}, "torch.load"),
    "by way of torchvision": ({**BOMB, "_target_": "torchvision.models.resnet.torch.load"}, "torchvision.models.res"),
    "by way of netslim": ({**BOMB, "_target_": "netslim.launch.export.torch.load"}, "netslim.launch.export.torch.load"),
    "a function of netslim": ({"_target_": "netslim.files.write_text", "path": MARK, "text": ""}, "write_text"),
    "a function of torchvision": (
        {"_target_": "torchvision.datasets.utils.download_url", "url": f"file:{MARK}", "root": "."}, "download_url",
    ),
    "a function of timm": ({"_target_": "timm.models.load_checkpoint", "checkpoint_path": "bomb.pt"}, "load_check"),
    "discovery": ({"_target_": "hydra.utils.get_class", "path": "os.system"}, "hydra.utils.get_class"),
    "discovery inside": (
        {"_target_": "torchvision.models.resnet.ResNet", "layers": [1, 1, 1, 1],
         "block": {"_target_": "hydra.utils.get_method", "path": f"{__name__}.touch"}}, "hydra.utils.get_method",
    ),
    "interpolation": ({"_target_": "${oc.decode:torch.load}", "f": "bomb.pt", "weights_only": False}, "${oc.decode"),
    "by way of a class": ({"_target_": "netslim.nets.VGG.load_state_dict"}, "netslim.nets.VGG.load_state_dict"),
    "somebody's own": ({"_target_": "hostile.touch"}, "hostile.touch"),
    "a relative name": ({"_target_": "..torch.load"}, "..torch.load"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished slim stage, as far as its network is built; a file there runs code if unpickled."""
    monkeypatch.chdir(tmp_path)
    Path("bomb.pt").write_bytes(pickle.dumps(Bomb()))
    Path("hostile.py").write_text(f"from pathlib import Path\nPath({MARK!r}).touch()\ndef touch(**_): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    files.write_json(tmp_path / "slim" / "record.json", {"stage": "slim", "train": "train"})
    files.write_json(tmp_path / "train" / "record.json", {"stage": "train", "classes": 2})
    files.write_tensors(tmp_path / "train" / "weights.pt", VGG([4], num_classes=2).state_dict())
    return tmp_path


@pytest.mark.parametrize("case", HOSTILE)
def test_settings_cannot_call_what_is_not_trusted(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, named = HOSTILE[case]
    (folder / "train" / "settings.json").write_text(json.dumps({"net": settings}))
    assert export.main(["slim", "--input", "3,8,8"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is no network or data set of netslim, torchvision or timm; to call it, add --trust" in line
    assert named in line
    assert not Path(MARK).exists()


def test_the_data_too(folder: Path) -> None:
    source = {"_target_": "torch.load", "_partial_": True, "f": "bomb.pt", "weights_only": False}
    data = {"_target_": "netslim.data.InMemoryData", "source": source, "mean": [0.5], "std": [0.5], "title": "x"}
    with pytest.raises(ValueError, match=r"torch\.load is no network or data set .* add --trust torch\.load"):
        export._example({"data": data}, None, ())
    assert not Path(MARK).exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"checkpoint_path": "bomb.pt"}, "checkpoint_path=bomb.pt reads a file"),
        ({"pretrained_cfg": {"file": "bomb.pt"}, "pretrained": True}, "pretrained_cfg="),
        ({"pretrained_cfg_overlay": {"file": "bomb.pt"}, "pretrained": True}, "pretrained_cfg_overlay="),
        ({"model_name": "local-dir:."}, "local-dir:. is no name of a network of timm"),
        ({"model_name": "hf-hub:somebody/net"}, "hf-hub:somebody/net is no name of a network of timm"),
    ],
)
def test_timm_reads_no_file_that_the_settings_name(more: dict[str, Any], named: str, folder: Path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"timm\.create_model with") as error:
        construct({"_target_": "timm.create_model", "model_name": "resnet18", **more}, num_classes=2)
    assert named in str(error.value)
    assert not Path(MARK).exists()


def test_what_the_user_names_is_called(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"add --trust hostile\.touch"):
        construct({"_target_": "hostile.touch"}, trust=["hostile", "hostile.other"])
    construct({"_target_": "hostile.touch"}, trust=["hostile.touch"])
    assert Path(MARK).exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "netslim.nets.VGG", "layers": [4, "M", 4], "in_channels": 1},
        {"_target_": "netslim.nets.VGG", "_args_": [[4, "M", 4]], "in_channels": 1},
        {"_target_": "netslim.nets.PreResNet", "depth": 11},
        {"_target_": "torchvision.models.resnet18"},
        {"_target_": "torchvision.models.get_model", "name": "mobilenet_v3_small"},
        {"_target_": "torchvision.models.mobilenetv2.MobileNetV2", "width_mult": 0.25},
        {"_target_": "timm.create_model", "model_name": "resnet10t"},
        {"_target_": "timm.models.resnet.resnet10t"},
    ],
    ids=lambda settings: settings["_target_"],
)
def test_known_networks_are_what_hydra_makes_of_them(settings: dict[str, Any]) -> None:
    if settings["_target_"].startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    expected = instantiate(settings, num_classes=3)
    torch.manual_seed(0)
    made = construct(settings, num_classes=3)
    assert str(made) == str(expected)
    for one, other in zip(made.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(one, other)
