"""What is recorded of a configuration, and what of it makes another stage. Oracle: the names before and after."""

from __future__ import annotations

import json

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from netslim.experiment.pipeline import stages_of
from netslim.experiment.stage import Stage
from netslim.launch import config, recorded
from netslim.launch.command_line import CONF


def stages(*words: str) -> dict[str, Stage]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["experiment=lab4_digits", *words], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return {stage.kind: stage for stage in stages_of(config.job(cfg, command=""))}


def changed(*words: str) -> list[str]:
    """The kinds of the stages that have another name with these words."""
    before, after = stages(), stages(*words)
    return [kind for kind in before if before[kind].name != after[kind].name]


@pytest.mark.parametrize(
    "words",
    [
        ["penalty=l1", "score=magnitude", "schedule=one_shot", "task=classification", "logger=[tensorboard]"],
        ["slimming.most=1.0", "scale_decay=null"],
        ["target_latency=null", "latency.runtime=eager", "latency.batch=1"],
        ["logger=none"],
        ["logger=[tensorboard,csv]"],
        ["callbacks=[]", "controls=[]", "stages=[]"],
        ["finetune.distill=0", "finetune.temperature=2", "finetune.scheduler=null"],
        ["scheduler._target_=netslim.training.lr_schedules.multistep"],
    ],
    ids=" ".join,
)
def test_a_door_at_its_default_leaves_the_names_of_the_stages(words):
    assert changed(*words) == []


def test_what_is_behind_a_door_makes_another_stage_where_it_works():
    everything = ["train", "slim", "finetune"]
    assert changed("slimming.most=0.5") == changed("score=layer_mean") == ["slim", "finetune"]
    assert changed("scale_decay=0") == everything
    assert changed("score._target_=netslim.method.scoring.variance.Variance") == ["slim", "finetune"]
    assert changed("finetune.distill=0.7") == changed("finetune.scheduler=cosine") == ["finetune"]
    assert changed("penalty._target_=netslim.method.shrinking.proximal.Proximal") == everything
    assert changed("callbacks=[{_target_: lightning.pytorch.callbacks.Timer}]") == everything
    assert changed("task._target_=netslim.training.classification.SlimmingTask") == everything


def test_where_a_latency_is_measured_makes_another_cut():
    one, four = stages("target_latency=0.5"), stages("target_latency=0.5", "latency.batch=4")
    assert [kind for kind in one if one[kind].name != four[kind].name] == ["slim", "finetune"]


def test_multiples_are_not_those_that_were_rounded_up_once():
    assert stages("slimming.round_to=8")["slim"].settings["rounding"] == "to the budget"
    assert all("rounding" not in stages(word)["slim"].settings for word in ("slimming.round_to=auto", "seed=0"))


def test_what_comes_from_the_environment_is_recorded_as_it_is_written(monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2")
    monkeypatch.setenv("CHANNELS", "1")
    words = ["data.title=${oc.env:TOKEN}", "net.in_channels=${oc.env:CHANNELS}", "outputs=${oc.env:TOKEN}"]
    found = stages(*words, "data.mean=[0.5]")
    text = json.dumps([dict(stage.settings) for stage in found.values()])
    assert "hunter2" not in text
    assert found["train"].settings["data"]["title"] == "${oc.env:TOKEN}"
    assert found["train"].settings["identity"].keys() == {"data.title", "net.in_channels"}
    again = stages(*words, "data.mean=[0.5]")
    assert again["train"].name == found["train"].name
    monkeypatch.setenv("TOKEN", "hunter3")
    assert stages(*words, "data.mean=[0.5]")["train"].name != found["train"].name  # another value is another stage


def test_a_setting_that_quotes_one_from_the_environment_is_not_resolved_either(monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2")
    found = stages("name=${oc.env:TOKEN}", "data.title=${name}")
    assert "hunter2" not in json.dumps(dict(found["train"].settings))
    assert stages()["train"].settings["epochs"] == 40  # others are


def test_where_files_are_is_known_by_the_name_of_the_setting_or_by_the_file(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"x")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["name=x", f"+net.weights={tmp_path}/w.pt", "+net.kind=w.pt", "data=image_folder"]
        cfg = compose("config", [*words, f"data.root={tmp_path}", f"data.cache_dir={tmp_path}"])
    assert recorded.places(cfg) == {"net.weights": f"{tmp_path}/w.pt", "data.root": str(tmp_path)}
