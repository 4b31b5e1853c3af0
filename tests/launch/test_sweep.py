"""What a sweep remembers of its jobs and says about them. Oracle: files and lines said by hand."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf, flag_override

from netslim.experiment import paths
from netslim.launch import app as application
from netslim.launch import command_line, ending, gpu_lease, job_status, resolvers, sweep
from netslim.report import unfinished

SHORT = ["net=vgg_digits", "epochs=1", "finetune.epochs=0"]


@pytest.fixture(autouse=True)
def _fresh():
    GlobalHydra.instance().clear()
    ending.started.clear()
    yield
    ending.started.clear()


def begin(monkeypatch, outputs: Path, **axes: str) -> Path:
    """What happens before the first job of ``netslim -m AXES outputs=OUTPUTS``; gives the folder."""
    monkeypatch.setattr(sys, "argv", ["netslim", "-m", *(f"{key}={value}" for key, value in axes.items())])
    ending.started.clear()
    with initialize_config_dir(str(command_line.CONF), version_base="1.3"):
        config = compose("config", [f"outputs={outputs}", "hydra.mode=MULTIRUN"], return_hydra_config=True)
        with flag_override(config, ["readonly", "struct"], [False, False]):
            config.hydra.sweeper.params = axes
        sweep.Sweep(call="1").on_multirun_start(config)
    (folder,) = ending.started
    return folder


def test_jobs_of_an_earlier_command_are_not_forgotten(tmp_path, monkeypatch):
    first = begin(monkeypatch, tmp_path, **{"lambda": "0,1e-3", "ratio": "0.5"})
    assert begin(monkeypatch, tmp_path, **{"lambda": "1e-3", "ratio": "0.5,0.9"}) == first
    assert begin(monkeypatch, tmp_path, **{"lambda": "1e-2", "ratio": "0.5"}) == first
    commands = unfinished.unfinished(paths.load_sweep(first), [])
    assert [shlex.split(line)[1:3] for line in commands] == [
        ["lambda=0.01", "ratio=0.5"],
        ["lambda=0.001", "ratio=0.5"],
        ["lambda=0.001", "ratio=0.9"],
        ["lambda=0", "ratio=0.5"],
    ]
    assert [len(part.jobs) for part in unfinished.asked(paths.load_sweep(first))] == [1, 2, 1]


def run(monkeypatch, capfd, *words: str, code: int) -> list[str]:
    """The lines on stderr of ``netslim WORDS``."""
    GlobalHydra.instance().clear()
    ending.started.clear()
    monkeypatch.setattr(sys, "argv", ["netslim", *words])
    with pytest.raises(SystemExit) as stop:
        application.main()
    assert stop.value.code == code
    return capfd.readouterr().err.splitlines()


def test_the_command_that_repeats_a_job_keeps_where_the_configuration_came_from(tmp_path, monkeypatch, capfd):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine.yaml").write_text("_target_: netslim.nets.VGG\nlayers: [4, M, 4]\nin_channels: 1\n")
    (tmp_path / "my.yaml").write_text(
        "defaults:\n- config\n- override net: mine\n- _self_\nepochs: 1\nfinetune:\n  epochs: 0\n"
    )
    flags = ["--config-dir", str(tmp_path), "--config-name", "my"]
    diverges = "callbacks=[{_target_:own_callback.Diverges}]"  # what no look at network and data can show
    (tmp_path / "own_callback.py").write_text(
        "from lightning import Callback\n"
        "class Diverges(Callback):\n"
        "    def on_train_start(self, *_):\n"
        "        raise FloatingPointError('training diverged')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    err = run(monkeypatch, capfd, "-m", *flags, "ratio=0.4,0.5", diverges, f"outputs={tmp_path}", code=1)
    repeated = shlex.split(err[-2])
    assert repeated == ["netslim", *flags, "ratio=0.5", diverges, f"outputs={tmp_path}"]
    assert "netslim: 2 of 2 jobs did not finish:" in err
    assert "training diverged" in err[-3]
    (again,) = run(monkeypatch, capfd, *repeated[1:], code=2)
    assert "training diverged" in again


def test_jobs_that_differ_in_another_setting_keep_their_own_log(tmp_path):
    words = [*SHORT, f"outputs={tmp_path}", "name=a", "optimizer.lr=0.1,0.05", "slimming.recalibration_batches=1"]
    subprocess.run([sys.executable, "-m", "netslim", "-m", *words], check=True, capture_output=True, timeout=300)
    rates = [OmegaConf.load(path).optimizer.lr for path in tmp_path.glob("a/logs/*/.hydra/config.yaml")]
    assert sorted(rates) == [0.05, 0.1]


def test_a_job_that_left_no_word_is_named_with_where_it_ran(tmp_path, capsys):
    overrides = ["lambda=0", "ratio=0.5"]
    states = job_status.folder(tmp_path)
    job_status.note(states, overrides, job_status.RUNNING, command="netslim lambda=0 ratio=0.5")
    ending.started[tmp_path] = [overrides]
    assert ending.summary() == 1
    err = capsys.readouterr().err
    assert "1 of 1 jobs did not finish" in err
    assert f"ended without a word (process {json.loads(next(tmp_path.rglob('*.json')).read_text())['pid']} on " in err
    assert "    netslim lambda=0 ratio=0.5\n" in err
    job_status.note(states, overrides, job_status.FINISHED, command="", value=0.9)
    assert ending.summary() == 0
    assert job_status.reason(job_status.read(job_status.folder(tmp_path, "other"), overrides)) == "was not started"


def test_one_job_per_gpu_or_per_threads(monkeypatch):
    monkeypatch.setattr(resolvers, "processor_cores", lambda: 8)
    monkeypatch.setattr(gpu_lease, "visible", list)
    assert [resolvers.workers(threads, 1, "auto") for threads in (None, 1, 3, 16)] == [1, 8, 2, 1]
    monkeypatch.setattr(gpu_lease, "visible", lambda: ["0", "1", "2", "3"])
    assert [resolvers.workers(1, devices, "auto") for devices in (1, 2, 3, "auto", 8)] == [4, 2, 1, 1, 1]
    assert [resolvers.workers(1, devices, "auto", 3) for devices in (1, 2, "auto")] == [12, 6, 3]
    assert resolvers.workers(2, 1, "cpu", 3) == 4


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher/joblib' is validated")  # as at the top of sweep.py
def test_a_launcher_that_is_not_installed_is_named_with_what_installs_it(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sweep, "find_spec", lambda name: None if "joblib" in name else name)
    (line,) = run(monkeypatch, capfd, "-m", "hydra/launcher=joblib", *SHORT, f"outputs={tmp_path}", code=2)
    assert line == "netslim: error: hydra/launcher=joblib is not installed: pip install 'netslim[joblib]'"


REFUSED_SWEEPS = {  # the swept words -> what is named
    ("lambda=0 1e-3",): "lambda=0 1e-3 is not a number",
    ("lambda=[0,1e-3]",): "lambda=[0, 0.001] is not a number",
    ("ratio=50%,90%",): "ratio=50% is not a number (job 1 of 2: ratio=50%)",
    ("ratio=0.5,1.5",): "for 50 % give 0.5 (job 2 of 2: ratio=1.5)",
    ("lambda=0,-1",): "λ is -1.0; it must be 0 (no penalty) or positive, such as 1e-4 (job 2 of 2: lambda=-1)",
    ("seed=0,a",): "seed=a is not a whole number",
    ("epochs=1,0",): "epochs=0 is too small",
    ("net=vgg_digits,vgg99",): "net=vgg99 does not exist",
    ("net=torchvision", "net.name=resnet18,resnet188"): "net.name=resnet188 is no network of torchvision; perhaps res",
    ("net=own", "net._target_=netslim.nets.VGG,netslim.nets.VGA"): "net._target_=netslim.nets.VGA cannot be imported",
    ("net=own,vgg_digits",): "net._target_ has no value; give net._target_=…",
    ("optimizer.lr=0.1,fast",): "optimizer.lr=fast is not a number",
    ("+trainer.max_steps=5,6",): "trainer.max_steps=5 cannot be",
    ("name=[a]",): "name=['a'] is no name of a folder",
    ("ratio=0.5,0.99",): "highest reachable ratio is 0.9732 (job 2 of 2: ratio=0.99)",
    ("net=vgg_digits,vgg_small",): "expects 3-channel images, digits (scikit-learn, 8×8) has 1",
    ("data=digits,image_folder", "data.root=nowhere"): "there is no setting 'data.root' here",
    ("data=image_folder", "data.root=nowhere", "net=vgg_small", "lambda=0,1"): "nowhere/train",
    ("trainer.devices=1,4", "trainer.accelerator=cpu"): "trainer.devices=4 needs trainer=ddp",
    ("name=a,null",): "name=None is no name of a folder",
}


@pytest.mark.parametrize("words", REFUSED_SWEEPS, ids=" ".join)
def test_a_sweep_with_one_wrong_job_is_refused_before_the_first_and_leaves_nothing(words, tmp_path, monkeypatch, capfd):
    (line,) = run(monkeypatch, capfd, "-m", *SHORT, *words, f"outputs={tmp_path}", code=2)
    assert line.startswith("netslim: error: ")
    assert REFUSED_SWEEPS[words] in line
    assert not list(tmp_path.iterdir())


def test_networks_without_a_name_have_a_folder_and_a_report_each(tmp_path):
    own = ["net._target_=netslim.nets.VGG", "++net.layers=[4,M,4]", "++net.in_channels=1"]
    words = ["-m", *SHORT[1:], "net=vgg_digits,own", *own, f"outputs={tmp_path}"]
    # A process of its own: jobs are forked, and this one may have run backward passes, whose threads do not fork.
    done = subprocess.run([sys.executable, "-m", "netslim", *words], capture_output=True, text=True, check=True)
    assert "did not finish" not in done.stderr
    for name in ("own_digits", "vgg_digits_digits"):
        assert len(paths.load_jobs(tmp_path / name)) == len(paths.load_sweep(tmp_path / name).jobs) == 1
        assert (tmp_path / name / "report" / "index.html").exists()


def test_a_second_call_that_is_killed_changes_nothing_of_what_the_first_one_knows(tmp_path, capsys):
    first, second = (job_status.folder(tmp_path, call) for call in (None, "second"))
    overrides = ["lambda=0", "ratio=0.5"]
    job_status.note(first, overrides, job_status.FINISHED, command="", value=0.9)
    ending.started[tmp_path] = [overrides]
    job_status.note(second, overrides, job_status.RUNNING, command="netslim lambda=0 ratio=0.5")
    assert ending.summary() == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "flying"}', '{"state": "failed", "pid": "x"}', "\xff"])
def test_a_damaged_state_is_a_job_that_did_not_finish(content, tmp_path, capsys, monkeypatch):
    overrides, states = ["lambda=0"], job_status.folder(tmp_path)
    monkeypatch.setattr(command_line, "alone", lambda words: " ".join(["netslim", *words]))
    job_status.note(states, overrides, job_status.FINISHED, command="", value=0.9)
    (path,) = states.iterdir()
    path.write_bytes(content.encode("latin1"))
    ending.started[tmp_path] = [overrides]
    assert ending.summary() == 1
    err = capsys.readouterr().err
    assert f"  its state is unknown: {path} is damaged (" in err
    assert err.splitlines()[3] == "    netslim lambda=0"
