"""Jobs whose channels are removed during the training, or in several rounds. Oracles: the ramp and the multiply-adds by
hand, accuracies counted without Lightning, the training that nobody interrupted."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import netslim
from netslim import files
from netslim.data import synthetic
from netslim.experiment import paths
from netslim.experiment.records import FinetuneRecord, FinishedJob, SlimRecord
from netslim.launch.export import rebuild
from netslim.nets import VGG
from netslim.report import results
from netslim.training.progress import History
from tests.commands import call

LAYERS = [8, "M", 12, 16]
WORDS = [
    "data=synthetic", "data.source.train=64", "data.source.test=16", "data.source.size=8", "data.batch_size=16",
    "data.val_size=16", "net=vgg_digits", "net.in_channels=3", "net.layers=[8,M,12,16]", "threads=1", "name=s",
    "logger=none", "optimizer.lr=0.05", "lambda=1e-2", "ratio=0.75",
]  # fmt: skip
GRADUAL = ["schedule=gradual", "schedule.start=0", "slimming.floor=0.1", "epochs=8"]


def run(outputs: Path, *words: str) -> None:
    call(*WORDS, *words, f"outputs={outputs}")


def jobs(outputs: Path) -> list[FinishedJob]:
    return paths.load_jobs(outputs / "s")


def dense() -> VGG:
    return VGG(LAYERS, in_channels=3, num_classes=4)


def macs(widths: list[int]) -> int:
    """Of this VGG on 8×8 images, by hand: three convolutions of 3×3, the last two on 4×4, and a linear layer."""
    a, b, c = widths
    return 9 * 3 * a * 64 + 9 * a * b * 16 + 9 * b * c * 16 + 4 * c


def correct(network: torch.nn.Module) -> int:
    images = synthetic(train=64, test=16, classes=4, size=8, channels=3)
    with torch.no_grad():
        return int((network.eval()((images.test.float() / 255 - 0.5) / 0.25).argmax(1) == images.test_labels).sum())


@pytest.fixture(scope="module")
def gradual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("gradual")
    run(outputs, *GRADUAL)
    return outputs


def test_the_record_of_a_gradual_job_tells_what_every_epoch_trained(gradual: Path) -> None:
    (job,) = jobs(gradual)
    cut = job.train.cut
    assert job.slim is None
    assert job.finetune is None
    assert cut
    gone = [math.floor(0.75 * (1 - (1 - min(1, epoch / 4)) ** 3) * 36 + 1e-9) for epoch in range(8)]
    assert [36 - sum(shape.widths) for shape in cut.epochs] == gone
    assert [shape.macs for shape in cut.epochs] == [macs(shape.widths) for shape in cut.epochs]
    assert job.train.train_macs == sum(3 * macs(shape.widths) * 48 for shape in cut.epochs)  # 48 images are trained on
    assert [sum(counts) for counts in job.train.gamma_history] == [sum(shape.widths) for shape in cut.epochs]
    assert (cut.removed, cut.prunable, cut.dense.macs) == (27, 36, macs([8, 12, 16]))
    assert [layer.kept for layer in cut.layers] == cut.epochs[-1].widths
    assert min(layer.kept - math.ceil(0.1 * layer.channels) for layer in cut.layers) >= 0


def test_the_small_network_is_saved_and_its_test_recorded(gradual: Path) -> None:
    (job,) = jobs(gradual)
    assert job.train.cut
    small = netslim.load(gradual / "s" / job.train.name / "slim.pt", dense())
    assert job.train.test.correct == correct(small)
    assert job.train.cut.small.params == sum(p.numel() for p in small.parameters())
    assert not (gradual / "s" / job.train.name / "weights.pt").exists()
    assert [path.name.split("_")[0] for path in sorted((gradual / "s").glob("*_*"))] == ["job", "train"]


@pytest.mark.parametrize("epoch", [1, 3, 7])
def test_a_gradual_job_that_was_cut_off_ends_with_the_same_bits(epoch: int, gradual: Path, tmp_path: Path) -> None:
    record = History.on_train_epoch_end

    def die(self, trainer, pl_module):
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt
        record(self, trainer, pl_module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "on_train_epoch_end", die)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path, *GRADUAL)
    run(tmp_path, *GRADUAL)
    (whole,), (again,) = jobs(gradual), jobs(tmp_path)
    assert again.train.cut == whole.train.cut
    assert again.train.train_macs == whole.train.train_macs
    assert again.train.epochs == whole.train.epochs
    assert again.train.gamma_history == whole.train.gamma_history
    expected, found = (
        files.read_tensors(folder / "s" / job.train.name / "slim.pt")["state"]
        for folder, job in ((gradual, whole), (tmp_path, again))
    )
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_small_network_of_a_gradual_job_is_found_again_by_its_folder(gradual: Path) -> None:
    (folder,) = (gradual / "s").glob("job_*")
    whole, small, at, _ = rebuild(folder)
    (job,) = jobs(gradual)
    assert job.train.cut
    assert at.name == job.train.name
    assert sum(p.numel() for p in whole.parameters()) == job.train.cut.dense.params
    assert correct(small) == job.train.test.correct


def test_fine_tuning_after_a_gradual_training_is_done_where_it_is_asked_for(tmp_path: Path) -> None:
    run(tmp_path, *GRADUAL, "epochs=3", "finetune.epochs=1", "data.val_size=0")
    (job,) = jobs(tmp_path)
    assert job.finetune
    small = netslim.load(tmp_path / "s" / job.finetune.name / "slim.pt", dense())
    assert job.finetune.test.correct == correct(small)
    widths = [layer.kept for layer in job.cut.layers]
    assert job.finetune.train_macs == 3 * macs(widths) * 64
    assert results.final(job) == ("after fine-tuning", job.finetune.test)
    assert job.epochs_total == 4


def test_a_ramp_ends_early_where_what_would_be_kept_is_stable(tmp_path: Path) -> None:
    """At a rate of almost 0 no γ moves, so all that is left is removed after four epochs."""
    network = dense()
    for layer in netslim.bn_layers(network).values():
        torch.nn.init.uniform_(layer.weight, 0.1, 1.0)
    files.write_tensors(tmp_path / "weights.pt", network.state_dict())
    own = [f"weights={tmp_path / 'weights.pt'}", "optimizer.lr=1e-12", "schedule.stable=0.999", "schedule.end=1"]
    run(tmp_path, *GRADUAL, *own, "schedule.most=1", "ratio=0.5")
    (job,) = jobs(tmp_path)
    assert job.train.cut
    ramp = [math.floor(0.5 * (1 - (1 - epoch / 8) ** 3) * 36 + 1e-9) for epoch in range(4)]
    assert [36 - sum(shape.widths) for shape in job.train.cut.epochs] == [*ramp, 18, 18, 18, 18]


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two passes that train for two epochs each and are fine-tuned for one; and one shot beside them."""
    outputs = tmp_path_factory.mktemp("passes")
    run(outputs, "epochs=2", "finetune.epochs=1", "schedule=passes", "schedule.passes=2")
    run(outputs, "epochs=2", "finetune.epochs=1")
    return outputs


def test_passes_train_with_the_penalty_between_the_rounds_and_share_the_first_training(passes: Path) -> None:
    one, two = sorted(jobs(passes), key=lambda job: len(job.more))
    assert [record.stage for record in two.more] == ["slim", "retrain"]
    assert one.train.name == two.train.name
    _, retrain = two.more
    assert isinstance(retrain, FinetuneRecord)
    settings = files.read_json(passes / "s" / retrain.name / "settings.json")
    assert (settings["lambda"], settings["epochs"], len(retrain.epochs)) == (0.01, 2, 2)
    assert two.finetune
    assert [len(training.epochs) for training in two.trainings] == [2, 2, 1]
    assert (
        len(list((passes / "s").glob("*_*/record.json"))) == 2 + 1 + 2 + 4
    )  # two jobs, one training, two stages of one shot, four of two


def test_one_pass_removes_at_most_half_of_a_layer(passes: Path) -> None:
    two = max(jobs(passes), key=lambda job: len(job.more))
    first = two.more[0]
    assert isinstance(first, SlimRecord)
    assert two.slim
    widths = [[8, 12, 16], [layer.kept for layer in first.layers], [layer.kept for layer in two.slim.layers]]
    assert all(b >= math.ceil(a / 2) for before, after in pairwise(widths) for a, b in zip(before, after, strict=True))
    assert (sum(widths[1]), sum(widths[2])) == (18, 9)


def test_the_multiply_adds_of_a_job_are_those_of_all_its_trainings(passes: Path) -> None:
    for job in jobs(passes):
        middle = [layer.kept for record in job.more if isinstance(record, SlimRecord) for layer in record.layers]
        rounds = [macs([8, 12, 16])] * 2 + ([macs(middle)] * 2 if middle else [])
        rounds.append(macs([layer.kept for layer in job.cut.layers]))
        assert job.train_macs == sum(3 * of * 48 for of in rounds)  # 48 images in each epoch
        assert job.epochs_total == len(rounds)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["schedule=gradual", "epochs=1"], "epochs=1: a network that shrinks at epoch ends (Gradual) needs at least 2"),
        (
            ["schedule=gradual", "ratio=0.9", "epochs=3"],
            "3 cuts of at most 50 % of a layer remove at most 87.5 %, not 90 %",
        ),
        (["schedule=gradual", "schedule.end=1.5"], "the ramp runs from 0.05 to 1.5 of the epochs"),
        (["schedule=gradual", "slimming.round_to=8"], "slimming.round_to=8: a schedule that cuts inside the training"),
        (
            ["schedule=passes", "ratio=0.95"],
            "4 passes of at most 50 % of a layer each remove at most 93.75 %, not 95 %",
        ),
        (["schedule=passes", "schedule.passes=0"], "schedule.passes=0 is no number of rounds; give 1 or more"),
        (["schedule=gradual", "score=taylor"], "score=Taylor needs data, and a schedule that cuts inside the training"),
        (["schedule=gradual", "slimming.floor=0.5"], "with at least 0.5 kept per layer only 18 can be removed"),
        (["schedule=gradual", "ratio=0.01"], "ratio 0.01 removes none of 36 channels; give a larger one"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "epochs=4", *words)
    assert ended.value.code == 2
    assert message in capfd.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("s/*/record.json"))


@pytest.mark.slow
def test_a_gradual_job_of_two_processes(tmp_path: Path) -> None:
    more = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", f"outputs={tmp_path}", "epochs=3"]
    done = subprocess.run([sys.executable, "-m", "netslim", *WORDS, *GRADUAL, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (job,) = jobs(tmp_path)
    assert job.train.cut
    assert job.train.train_macs == sum(3 * macs(shape.widths) * 48 for shape in job.train.cut.epochs)
    assert job.train.test.correct == correct(netslim.load(tmp_path / "s" / job.train.name / "slim.pt", dense()))
