"""From a file of weights to a slim network, through the command. Oracle: what the file's training recorded."""

import shutil
from pathlib import Path

import pytest
import torch
import torchvision

from netslim import files
from netslim.experiment import paths
from netslim.nets.library import published_weights
from tests.commands import call

DATA = ["data=synthetic", "data.source.size=8", "data.source.train=64", "data.val_size=8", "logger=none"]
NET = ["net.layers=[8,M,12]", "net.in_channels=3"]


def run(outputs: Path, *words: str) -> None:
    call(*DATA, f"outputs={outputs}", *words)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def trained(outputs: Path) -> Path:
    run(outputs, *NET, "name=first", "epochs=2", "lambda=0", "finetune.epochs=0")
    (folder,) = (outputs / "first").glob("train_*")
    return folder


def test_no_epochs_slim_the_network_as_it_is(trained, outputs):
    run(
        outputs,
        *NET,
        "name=second",
        f"weights={trained}/weights.pt",
        "epochs=0",
        "target_macs=0.7",
        "finetune.epochs=1",
    )
    (job,) = paths.load_jobs(outputs / "second")
    first = files.read_json(trained / "record.json")
    assert job.train.epochs == []
    assert (job.strength, job.train.strength, job.train.budget) == (0, 0, 0)
    assert job.train.test.correct == job.slim.dense.test.correct == first["test"]["correct"]
    before, after = (
        files.read_tensors(folder / "weights.pt") for folder in (trained, outputs / "second" / job.train.name)
    )
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert (
        "A network that was trained before, pruning at 30 % of MACs"
        in (outputs / "second" / "report" / "report.md").read_text()
    )


def test_the_stage_is_named_by_what_is_in_the_file(trained, outputs, tmp_path):
    def trainings(file: Path) -> set[str]:
        run(outputs, *NET, "name=third", f"weights={file}", "epochs=1", "lambda=1e-2", "finetune.epochs=0")
        return {path.name for path in (outputs / "third").glob("train_*")}

    here, there, other = trained / "weights.pt", tmp_path / "moved.pt", tmp_path / "other.pt"
    shutil.copy(here, there)
    weights = files.read_tensors(here)
    torch.save({**weights, "classifier.bias": weights["classifier.bias"] + 1}, other)
    one = trainings(here)
    assert trainings(there) == one
    assert len(one) == 1
    assert len(trainings(other)) == 2


def test_published_weights_with_a_new_head(outputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"weights of shufflenet_v2_x0_5 are not in .*checkpoints; download https"):
        published_weights("torchvision", "shufflenet_v2_x0_5")
    url = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    file = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    published = torchvision.models.shufflenet_v2_x0_5().state_dict()
    torch.save(published, file)
    words = ["net=torchvision", "net.name=shufflenet_v2_x0_5", "net.pretrained=true", "data.source.size=32"]
    run(outputs, *words, "name=fourth", "epochs=0", "ratio=0.2", "finetune.epochs=0")
    out = capsys.readouterr().out
    assert "fc.weight, fc.bias of another number of classes: new, for 4" in out
    assert "epochs=0 trains no new head: until it is fine-tuned the network guesses" in out
    (job,) = paths.load_jobs(outputs / "fourth")
    left = files.read_tensors(outputs / "fourth" / job.train.name / "weights.pt")
    torch.testing.assert_close(left["conv5.0.weight"], published["conv5.0.weight"], rtol=0, atol=0)
    assert left["fc.weight"].shape[0] == 4
    assert job.train.network == "torchvision shufflenet_v2_x0_5"


WRONG = {
    "epochs=0": "epochs=0 is too small; give 1 or more",
    "weights=nowhere.pt": "weights=nowhere.pt: there is no such file",
    "weights={trained} epochs=0 lambda=1e-3": "lambda=0.001 has no effect with epochs=0; leave it out",
    "weights={trained} epochs=1 net.layers=[8,M,13]": "does not fit VGG: features.4.weight is (12, 8, 3, 3) in",
    "weights={trained} net=torchvision net.pretrained=true": "are two answers; give one of them",
    "net=torchvision net.pretrained=perhaps": "net.pretrained=perhaps is neither true nor false",
    "net=torchvision net.pretrained=true": "net.pretrained=true: the weights of resnet18 are not in",
    "net=timm net.pretrained=true": "net.pretrained=true: the weights of resnet18 are not in the hub's cache",
    "net=timm net.name=resnet_18": "net.name=resnet_18 is no network of timm; perhaps",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_is_refused_in_one_line(words, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    given = words.format(trained=trained / "weights.pt").split()
    with pytest.raises(SystemExit) as refused:
        run(tmp_path, *([] if "net=" in words else NET), *given, "name=wrong", "finetune.epochs=0")
    assert refused.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert WRONG[words] in line
    assert not list(tmp_path.glob("wrong/*/weights.pt"))
