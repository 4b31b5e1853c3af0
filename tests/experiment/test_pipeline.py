"""A whole small sweep through the command's entry point. Oracles: accuracy and stages counted by hand, events read."""

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import netslim
from netslim import files
from netslim.data import InMemoryData, digits
from netslim.experiment import paths
from netslim.nets import VGG
from netslim.training.progress import History
from tests.commands import call as run

LAYERS = [16, 16, "M", 32, 32, "M", 64, 64]
LAB = ["experiment=lab4_digits", "net.layers=[16,16,M,32,32,M,64,64]", "method=paper"]  # narrow, one shot: in seconds


def run_until_epoch_2(*words: str) -> None:
    """The same, killed when the second epoch is validated and logged, but not in the checkpoint."""
    record = History.on_train_epoch_end

    def die(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt
        record(self, trainer, pl_module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "on_train_epoch_end", die)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(*words)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    run("-m", *LAB, "lambda=0,1e-3,1e-2", "epochs=3", "finetune.epochs=2", f"outputs={outputs}")
    return outputs / "lab4_digits"


def correct(network: torch.nn.Module) -> int:
    """Right answers on the test digits, counted without Lightning or the data module."""
    images = digits()
    pixels = (images.test.float() / 255 - 0.305) / 0.375
    with torch.no_grad():
        return int((network.eval()(pixels).argmax(1) == images.test_labels).sum())


def test_three_strengths_and_two_ratios_train_three_times(lab):
    stages = [path.name.split("_")[0] for path in lab.iterdir() if path.is_dir()]
    assert {kind: stages.count(kind) for kind in ("train", "slim", "finetune", "job")} == {
        "train": 3,
        "slim": 6,
        "finetune": 6,
        "job": 6,
    }
    assert [job.train.network for job in paths.load_jobs(lab)] == ["vgg_digits"] * 6


def test_recorded_accuracies_are_those_of_the_saved_weights(lab):
    for job in paths.load_jobs(lab):
        dense = VGG(LAYERS, in_channels=1)
        dense.load_state_dict(files.read_tensors(lab / job.train.name / "weights.pt"))
        assert job.train.test.correct == job.slim.dense.test.correct == correct(dense)
        example = torch.zeros(1, 1, 8, 8)
        keep = netslim.select_channels(dense, ratio=job.ratio, example_input=example)
        masked = netslim.mask(dense, keep)
        assert job.slim.small.test.correct == correct(masked)
        assert job.slim.removed == int(job.ratio * 224)
        small = netslim.load(lab / job.slim.name / "slim.pt", VGG(LAYERS, in_channels=1))
        assert job.slim.recalibrated.test.correct == correct(small)
        assert job.slim.small.params == sum(p.numel() for p in small.parameters())
        tuned = netslim.load(lab / job.finetune.name / "slim.pt", VGG(LAYERS, in_channels=1))
        assert job.finetune.test.correct == correct(tuned)
        assert job.finetune.test.total == 364


def test_the_budget_is_the_schedules(lab):
    steps = -(-InMemoryData(digits, title="a set", mean=[0.3], std=[0.4], val_size=0.1).train_size // 64)
    for job in paths.load_jobs(lab):
        rows = job.train.epochs
        assert [row["lr"] for row in rows] == pytest.approx([0.1, 0.01, 0.001])  # drops after 50 % and 75 % of 3
        assert job.train.budget == pytest.approx(job.strength * steps * 0.111 / (1 - 0.9))


def test_fine_tuning_is_the_recipe_anew_on_the_slim_weights_without_penalty(lab):
    """Oracle: a plain loop over the same batches: fresh SGD, the training's rate, its drops, no λ."""
    job = paths.load_jobs(lab)[-2]
    assert (job.strength, job.ratio) == (1e-2, 0.5)
    network = netslim.load(lab / job.slim.name / "slim.pt", VGG(LAYERS, in_channels=1)).train()
    data = InMemoryData(digits, title="a set", mean=[0.305], std=[0.375], val_size=0.1, crop_padding=1, seed=0)
    loader = data.train_dataloader()
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for epoch, rate in enumerate((0.1, 0.001)):  # both drops of two epochs fall after the first
        loader.sampler.set_epoch(epoch)
        sgd.param_groups[0]["lr"] = rate
        for batch in loader:
            images, labels = data.on_after_batch_transfer(batch, 0)
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            sgd.step()
    found = netslim.load(lab / job.finetune.name / "slim.pt", VGG(LAYERS, in_channels=1)).state_dict()
    for name, expected in network.state_dict().items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


def test_tensorboard_has_one_run_per_stage_with_curves_and_histograms(lab):
    for job in paths.load_jobs(lab):
        for stage, epochs, under in (("train", 3, ""), ("finetune", 2, "finetune/")):
            events = EventAccumulator(str(lab / getattr(job, stage).name), size_guidance={"histograms": 0}).Reload()
            for tag, column in (("accuracy/train", "train_accuracy"), ("accuracy/val", "val_accuracy")):
                points = [event.value for event in events.Scalars(f"{under}{tag}")]
                assert [event.step for event in events.Scalars(f"{under}{tag}")] == list(range(epochs))
                assert points == pytest.approx([row[column] for row in getattr(job, stage).epochs])
            rates = [event.value for event in events.Scalars(f"{under}learning_rate")]
            assert rates == pytest.approx([row["lr"] for row in getattr(job, stage).epochs])
            assert len(events.Histograms(f"{under}gamma/all")) == epochs
            test = events.Scalars(f"{under}accuracy/test")[-1]
            assert test.value == pytest.approx(getattr(job, stage).test.score)
            assert test.step == epochs - 1  # beside the other curves' last point


def test_an_epoch_that_was_cut_off_stands_once_in_the_curves(tmp_path):
    """Validated and logged, then killed before the checkpoint: the epoch is run and logged again."""
    words = [*LAB, "epochs=3", "finetune.epochs=0", "lambda=1e-2", f"outputs={tmp_path}"]
    run_until_epoch_2(*words)
    run(*words)
    (job,) = paths.load_jobs(tmp_path / "lab4_digits")
    events = EventAccumulator(str(tmp_path / "lab4_digits" / job.train.name)).Reload()
    assert [event.step for event in events.Scalars("accuracy/val")] == [0, 1, 2]
    assert [row["epoch"] for row in job.train.epochs] == [1, 2, 3]


def weights(stage: Path) -> dict[str, torch.Tensor]:
    if (stage / "weights.pt").exists():
        return files.read_tensors(stage / "weights.pt")
    return netslim.load(stage / "slim.pt", VGG(LAYERS, in_channels=1)).state_dict()


def test_a_compiled_job_that_was_cut_off_ends_with_the_weights_of_one_that_is_neither(tmp_path):
    words = [*LAB, "epochs=3", "finetune.epochs=1", "lambda=1e-2", "ratio=0.5"]
    run(*words, f"outputs={tmp_path / 'plain'}")
    compiled = [*words, "compile={backend: eager}", f"outputs={tmp_path / 'compiled'}"]
    run_until_epoch_2(*compiled)
    run(*compiled)
    plain, again = (paths.load_jobs(tmp_path / which / "lab4_digits")[0] for which in ("plain", "compiled"))
    for stage in ("train", "finetune"):
        expected, found = (
            weights(tmp_path / which / "lab4_digits" / getattr(job, stage).name)
            for which, job in (("plain", plain), ("compiled", again))
        )
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert again.slim.recalibrated.test == plain.slim.recalibrated.test


def test_tensorboard_has_the_hyperparameters_with_the_final_accuracies(lab):
    for job in paths.load_jobs(lab):
        events = EventAccumulator(str(lab / job.finetune.name)).Reload()
        contents = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(contents).session_start_info
        assert start.hparams["ratio"].number_value == job.ratio
        final = events.Scalars("final/fine-tuned accuracy")[-1].value
        assert final == pytest.approx(job.finetune.test.correct / 364)
    assert not list(lab.glob("job_*/events*"))


DIVERGES = """
from lightning import Callback

class Diverges(Callback):  # what no look at network and data can show
    def on_train_start(self, trainer, pl_module):
        if pl_module.strength:
            raise FloatingPointError("training diverged")
"""


def test_a_failed_job_is_named_and_the_others_finish(tmp_path, capfd, monkeypatch):
    (tmp_path / "divergence.py").write_text(DIVERGES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    words = ["net=vgg_digits", "epochs=1", "finetune.epochs=0", "lambda=0,1e-3", f"outputs={tmp_path / 'o'}"]
    with pytest.raises(SystemExit) as exit_:
        run("-m", *words, "callbacks=[{_target_:divergence.Diverges}]")
    captured = capfd.readouterr()
    assert exit_.value.code == 1
    why, again = captured.err.splitlines()[-3:-1]
    assert "training diverged" in why
    assert "netslim net=vgg_digits epochs=1 finetune.epochs=0 lambda=0.001" in again
    assert "to repeat just this one: netslim net=vgg_digits epochs=1 finetune.epochs=0 lambda=0.001" in captured.out
    assert [job.strength for job in paths.load_jobs(tmp_path / "o" / "vgg_digits_digits")] == [0.0]
    assert "lambda=0.001" in (tmp_path / "o" / "vgg_digits_digits" / "report" / "report.md").read_text()


def test_a_seed_is_an_axis_and_the_report_gives_mean_and_deviation(tmp_path):
    run("-m", "net=vgg_digits", "epochs=1", "finetune.epochs=0", "seed=0,1", f"outputs={tmp_path}", "lambda=0")
    first, second = paths.load_jobs(tmp_path / "vgg_digits_digits")
    assert first.train.scales != second.train.scales
    report = (tmp_path / "vgg_digits_digits" / "report" / "report.md").read_text()
    assert "±" in report


def test_a_run_says_each_thing_once_and_warns_of_nothing(tmp_path, capfd):
    run(*LAB, "epochs=2", "finetune.epochs=1", f"outputs={tmp_path}", "lambda=1e-2")
    captured = capfd.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert len(lines) == len(set(lines)) + lines.count("") - 1 * bool(lines.count(""))
    assert sum("epoch 1/2" in line for line in lines) == 1
    for word in ("job 1 of 1", "loss", "accuracy", "dead γ", "Test set: Accuracy:", "Report:", "tensorboard --logdir"):
        assert word in captured.out


@pytest.mark.slow
def test_the_largest_lambda_of_the_digits_lab_is_sparse_and_zero_is_not(tmp_path):
    run("-m", *LAB, "epochs=60", "finetune.epochs=0", "ratio=0.5", "lambda=0,1e-2", f"outputs={tmp_path}")
    none, most = paths.load_jobs(tmp_path / "lab4_digits")
    share = [
        sum(abs(gamma) < 1e-2 for layer in job.train.scales.values() for gamma in layer) / 224 for job in (none, most)
    ]
    assert share[0] == 0
    assert share[1] >= 0.4
    assert most.slim.small.test.correct > none.slim.small.test.correct
