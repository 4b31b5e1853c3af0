"""A configuration that cannot become a job is refused in one line. Oracle: what is wrong, written beside it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from netslim.experiment.job import Job
from netslim.launch import config
from netslim.launch.command_line import CONF
from netslim.method.penalties import Penalty


class Half(Penalty):
    def value(self, scales): ...

    def add_gradient(self, scales, weight): ...


class OwnTask:
    """Adds λ itself, and takes nothing else."""

    def __init__(self, network, strength): ...


class Plain:
    def __init__(self, network, optimizer): ...


def stage(job, stages): ...


def control(job): ...


@pytest.fixture(autouse=True)
def own(monkeypatch):
    module = ModuleType("own")
    vars(module).update(Half=Half, OwnTask=OwnTask, Plain=Plain, stage=stage, control=control)
    monkeypatch.setitem(sys.modules, "own", module)


def job(*words: str) -> Job:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["experiment=lab4_digits", *words], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return config.job(cfg, command="netslim")


def test_a_job_has_λ_and_ratio_in_plain_sight_and_nothing_that_is_default():
    made = job("lambda=1e-3", "ratio=0.25", "finetune.epochs=7")
    assert (made.strength, made.ratio, made.seed, made.epochs, made.finetune_epochs) == (1e-3, 0.25, 0, 40, 7)
    assert (made.penalty, made.score, made.callbacks, made.controls, made.stages) == (None, None, (), (), ())
    assert made.schedule.rounds(0.25) == (0.25,)
    assert len(made.loggers) == 1
    assert job("logger=none").loggers == ()
    assert len(job("logger=[csv,tensorboard]").loggers) == 2
    assert isinstance(job("penalty._target_=own.Half").penalty, Half)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (
            ["+data.source.token=abc"],
            r"data\.source: netslim\.data\.digits: .* keyword argument 'token'",
        ),
        (["callbacks=[{_target_: lightning.pytorch.callbacks.EarlyStopping}]"], r"callbacks\[0\]: .*'monitor'"),
        (["callbacks=[5]"], r"callbacks\[0\]=5 names no function or class"),
        (["callbacks=5"], "callbacks=5 is no list"),
        (["controls=[scratch_]"], "controls=scratch_ is not known"),
        (["controls=[{_target_: own.control}]"], r"controls\[0\]: own\.control: too many positional arguments"),
        (["+logger.mine._target_=builtins.id"], r"logger\.mine: builtins\.id: too many positional arguments"),
        (["task._target_=own.OwnTask", "penalty._target_=own.Half"], "adds λ itself and takes no penalty"),
        (["task._target_=own.OwnTask", "label_smoothing=0.1"], "the task own.OwnTask takes no label_smoothing"),
        (["task._target_=own.Plain", "compile=true"], "the task own.Plain takes no compile"),
        (["+task.width=3"], r"task: netslim\.SlimmingTask: got an unexpected keyword argument 'width'"),
        (
            ["finetune.distill=0.7", "task._target_=own.Plain"],
            r"distill=0\.7: the task own\.Plain takes no distill",
        ),
        (["finetune.distill=1.5"], "distill is 1.5; it must be at least 0"),
        (["finetune.distill=0.5", "finetune.temperature=0"], "temperature of distillation is 0.0; it must be over 0"),
        (
            ["finetune.scheduler=linear"],
            "finetune.scheduler=linear is not known; there is multistep, cosine",
        ),
        (
            ["finetune.scheduler={_target_: netslim.training.lr_schedules.cosine, at: 1}"],
            r"finetune\.scheduler: .*'at'",
        ),
        (["schedule._target_=own.Nothing"], "own.Nothing"),
        (
            ["schedule={_target_: builtins.dict}"],
            "builtins.dict is no schedule, it has no rounds and no during",
        ),
        (["score={_target_: builtins.dict}"], "score: builtins.dict is no score, it has no needs_data"),
        (["score=vote", "score.of=[1,2]"], "score=vote chooses among scores, and 1 is none"),
        (["score=vote", "score.of=null"], "score=vote chooses among scores, and None is none"),
        (["score=per_mac", "score.power=a"], "^score: power=a: how much cost counts must be 0 or more"),
        (["schedule=passes", "schedule.passes=1.5"], "^schedule: schedule.passes=1.5 is no number of rounds"),
        (["schedule=passes", "schedule.passes=a"], "^schedule: schedule.passes=a is no number of rounds"),
        (["schedule=passes", "schedule.epochs=1.5"], "^schedule: schedule.epochs=1.5 is no number of epochs"),
        (["controls=scratch"], r"controls=scratch is no list; write controls=\[scratch\]"),
        (["export=3"], "export=3 is no list of words"),
        (["export=true"], "export=True is no list of words"),
        (["finetune.scheduler=3"], "finetune.scheduler=3 is no schedule; give one of multistep"),
        (["seed=99999999999999999999"], "seed=9+ is too large; give at most 4294967295"),
        (["+net.pretrained=true"], "net.pretrained is for net=torchvision and net=timm"),
        (["+score.power=2"], "Magnitude.*power"),
        (["+trainer.logger=false"], "trainer.logger is set by netslim itself; use logger="),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_before_anything_is_computed(words, fault):
    with pytest.raises(Exception, match=fault) as caught:
        job(*words)
    assert isinstance(caught.value, ValueError) or "own.Nothing" in fault  # Hydra's own, one line too


@pytest.mark.parametrize("amount", [["ratio=0.5"], ["target_macs=0.5"], ["target_macs=0.5", "ratio=null"]])
def test_a_network_that_shrinks_in_its_training_is_not_fine_tuned_unless_that_is_asked_for(amount):
    own = [*amount, "schedule=gradual", "lambda=0"]
    assert [job(*own, *more).finetune_epochs for more in (["finetune.epochs=null"], ["finetune.epochs=3"])] == [0, 3]


def test_an_early_end_of_the_ramp_is_in_the_name_of_a_stage_only_where_it_is_asked_for():
    plain, early = job("schedule=gradual"), job("schedule=gradual", "schedule.stable=0.999")
    assert plain.schedule.stable is None
    assert set(plain.settings["slim"]["schedule"]) == {"_target_", "start", "end", "most"}
    assert early.schedule.stable == early.settings["slim"]["schedule"]["stable"] == 0.999


def test_what_a_task_does_not_take_it_is_not_given():
    made = job("task._target_=own.Plain", "lambda=1e-3")
    assert isinstance(made.task(network=None, optimizer=None), Plain)
    assert len(job("stages=[{_target_: own.stage}]").stages) == 1
