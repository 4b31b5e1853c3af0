"""Every file of conf/ builds what it says, and the wheel carries them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict

from netslim.data import InMemoryData
from netslim.launch import recorded
from netslim.launch.command_line import CONF
from netslim.modules import bn_layers

NETS = sorted(path.stem for path in (CONF / "net").glob("*.yaml") if path.stem != "own")
DATA = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def composed(*overrides: str):
    """As a command composes it: an experiment may ask which schedule was chosen."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@pytest.mark.parametrize("name", NETS)
def test_every_network_has_as_many_outputs_as_classes(name):
    network = instantiate(composed(f"net={name}").net, _partial_=True)(num_classes=7).eval()
    channels = 1 if name == "vgg_digits" else 3
    with torch.no_grad():
        assert network(torch.zeros(1, channels, 32, 32)).shape == (1, 7)
    assert bn_layers(network)


@pytest.mark.parametrize("name", [name for name in DATA if name not in ("image_folder", "cifar10_jpeg")])
def test_every_data_set_is_described_for_its_channels(name):
    data = instantiate(composed(f"data={name}").data)
    assert isinstance(data, InMemoryData)
    assert data.title
    assert len(data.mean) == len(data.std) == (1 if name in ("digits", "mnist", "fashion_mnist") else 3)


def test_the_digits_are_normalised():
    data = instantiate(composed("data=digits").data)
    pixels = torch.cat([images for images, _ in (data.on_after_batch_transfer(b, 0) for b in data.test_dataloader())])
    assert pixels.mean().abs() < 0.05
    assert (pixels.std() - 1).abs() < 0.05


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_shows_its_command(name):
    root = ["data.root=somewhere"] if name in ("lab4_small", "high_ratio_cifar", "high_ratio_cifar_macs") else []
    settings = composed(f"experiment={name}", *root)
    assert settings.name == name
    assert OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    header = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert header[1].startswith(f"# netslim -m experiment={name}")


EPOCHS = {"lab4_digits": 60, "high_ratio_digits": 90, "high_ratio_cifar": 17, "high_ratio_vgg16": 320}


@pytest.mark.parametrize(("name", "total"), EPOCHS.items())
def test_every_method_trains_for_as_many_epochs_in_all(name, total):
    for method in METHODS:
        if (name, method) == ("lab4_digits", "passes"):  # the lab has one shot and gradual
            continue
        given = composed(f"experiment={name}", f"method={method}")
        rounds = given.schedule.passes if method == "passes" else 1
        assert rounds * given.epochs + given.finetune.epochs == total


def test_mode_chooses_a_method_and_a_method_chosen_by_name_counts_more():
    paper, ours, named = composed(), composed("mode=netslim"), composed("mode=netslim", "method=passes")
    assert (paper.score._target_, paper.slimming.floor) == ("netslim.method.scores.Magnitude", 1)
    assert (ours.schedule._target_, named.schedule._target_) == (
        "netslim.method.gradual.Gradual",
        "netslim.method.passes.Passes",
    )
    assert composed("experiment=lab4", "mode=netslim").schedule == ours.schedule


def test_the_labs_sweep_is_the_labs():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        lab = compose("config", ["experiment=lab4"], return_hydra_config=True)
    assert lab.hydra.sweeper.params == {"lambda": "0,1e-5,1e-4", "ratio": "0.5,0.9"}
    assert (lab.epochs, lab.finetune.epochs, lab.finetune.lr, lab.data.batch_size) == (160, 160, 0.1, 64)
    assert dict(lab.optimizer, _target_=None, _partial_=None) == {
        "_target_": None, "_partial_": None, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "fused": None,
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("paper_")])
@pytest.mark.parametrize("data", ["cifar10", "cifar10_jpeg"])
def test_the_papers_experiments_are_the_authors_recipe(name, data):
    given = composed(f"experiment={name}", f"data={data}", *["data.root=somewhere"] * (data == "cifar10_jpeg"))
    assert (given.epochs, given.finetune.epochs, given.finetune.lr, given.data.batch_size) == (160, 160, 0.1, 64)
    assert (given.data.val_size, given.data.crop_padding, given.data.flip) == (0, 4, True)
    assert (given.data.mean, given.data.std) == ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    assert given["lambda"] == (1e-4 if name == "paper_vgg19" else 1e-5)


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(tmp_path):
    root = Path(__file__).parents[2]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("netslim-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    code = "import netslim.launch.app as m; print(m.command_line.CONF); m.main()"
    shown = subprocess.run(
        [sys.executable, "-c", code, "experiment=lab4", "--cfg", "job"],
        check=True, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
    ).stdout  # fmt: skip
    assert shown.splitlines()[0] == str(site / "netslim" / "conf")
    assert "name: lab4" in shown
    assert {"netslim", "netslim-report"} <= {path.name for path in (site / "bin").iterdir()}
    assert list(site.glob("netslim-*.dist-info/licenses/LICENSE"))
    pages = {page.relative_to(root / "src").as_posix() for page in (root / "src").rglob("*.md")}
    assert {"netslim/README.md", "netslim/engine/README.md", "netslim/launch/README.md"} <= pages
    assert all((site / page).exists() for page in pages)
    assert {path.suffix for path in (site / "netslim" / "report" / "render").rglob("*.*")} >= {".css", ".py"}


@pytest.mark.parametrize("word", ["data.eval_batch_size=7", "trainer.accelerator=cpu", "trainer=ddp", "lambda=1"])
def test_what_cannot_change_a_result_makes_no_other_stage(word):
    settings = recorded.settings(composed("name=x", word))
    assert settings == recorded.settings(composed("name=x"))
    assert settings != recorded.settings(composed("name=x", word, "data.batch_size=7"))


@pytest.mark.parametrize("optimizer", sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml")))
@pytest.mark.parametrize("scheduler", sorted(path.stem for path in (CONF / "scheduler").glob("*.yaml")))
def test_every_optimiser_steps_with_every_schedule_and_its_state_is_plain(optimizer, scheduler, tmp_path):
    cfg = composed(f"optimizer={optimizer}", f"scheduler={scheduler}")
    weight = torch.nn.Parameter(torch.ones(2))
    made = instantiate(cfg.optimizer)([weight])
    schedule = instantiate(cfg.scheduler)(made, epochs=10)
    weight.grad = torch.ones(2)
    made.step()
    schedule.step()
    assert (weight < 1).all()
    torch.save({"optimizer": made.state_dict(), "schedule": schedule.state_dict()}, tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
