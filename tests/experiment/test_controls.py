"""Controls: what a result is compared with. Oracles: a network of the same widths made by hand and trained by a plain
loop, widths counted by hand, folders counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import netslim
from netslim import files
from netslim.data import InMemoryData, digits
from netslim.experiment import control_networks, controls, fitting, paths, pipeline
from netslim.experiment.networks import network_after
from netslim.experiment.records import FinishedJob
from netslim.experiment.stage import Finished
from netslim.method.scoring.random import Random
from netslim.method.scoring.uniform import Uniform
from netslim.nets import VGG

LAYERS = [8, "M", 8, 4]
IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(3))
ALL = "controls=[scratch,scratch_b,uniform,uniform_macs,random,dense]"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, job_of) -> Path:
    """Two jobs with all controls."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("outputs") / "s"
    for words in ([ALL], [ALL, "lambda=0"]):
        pipeline.run(folder, job_of(*words))
    return folder


def control(job: FinishedJob, kind: str):
    (record,) = [record for record in job.controls if record.stage == kind]
    return record


def test_there_is_one_dense_control_for_all_jobs_and_one_uniform_for_all_lambdas(sweep):
    kinds = [path.name.split("_")[0] for path in sweep.iterdir() if path.is_dir()]
    expected = {
        "train": 2,
        "scratch": 2,
        "scratch-b": 2,
        "uniform": 1,
        "uniform-macs": 2,
        "random": 2,
        "dense": 1,
        "job": 2,
    }
    assert {kind: kinds.count(kind) for kind in expected} == expected
    for job in paths.load_jobs(sweep):
        assert [record.stage for record in job.controls] == [
            "scratch",
            "scratch-b",
            "uniform",
            "uniform-macs",
            "random",
            "dense",
        ]
        assert job.more == []


def test_epochs_are_those_of_the_whole_job(sweep):
    (job, _) = paths.load_jobs(sweep)
    epochs = {record.stage: len(record.epochs) for record in job.controls}
    dense, small = job.slim.dense.macs, job.slim.small.macs
    assert epochs == {
        "scratch": 3,
        "scratch-b": round((2 * dense + 1 * small) / small),
        "uniform": 3,
        "uniform-macs": 3,
        "random": 1,
        "dense": 3,
    }


def test_scratch_b_costs_what_the_job_costs_to_half_an_epoch(sweep):
    (job, _) = paths.load_jobs(sweep)
    found = control(job, "scratch-b")
    assert abs(found.train_macs - job.train_macs) <= found.train_macs / len(found.epochs) / 2


def trained_by_hand(network: nn.Module, epochs: int) -> nn.Module:
    """A plain loop over the same batches: SGD, a tenth of the rate after 50 % and 75 % of the epochs, no λ."""
    data = InMemoryData(digits, title="d", mean=[0.305], std=[0.375], val_size=0.1, crop_padding=1, seed=0)
    loader = data.train_dataloader()
    sgd = torch.optim.SGD(network.train().parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for epoch, rate in zip(range(epochs), (0.1, 0.01, 0.001), strict=True):
        loader.sampler.set_epoch(epoch)
        sgd.param_groups[0]["lr"] = rate
        for batch in loader:
            images, labels = data.on_after_batch_transfer(batch, 0)
            sgd.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            sgd.step()
    return network


def test_scratch_is_a_network_made_with_these_widths_and_trained_by_a_plain_loop(sweep):
    job = paths.load_jobs(sweep)[-1]
    a, b, c = (layer.kept for layer in job.slim.layers)
    torch.manual_seed(0)
    expected = trained_by_hand(VGG([a, "M", b, c], in_channels=1), epochs=3).state_dict()
    record = control(job, "scratch")
    found = netslim.load(sweep / record.name / "slim.pt", VGG(LAYERS, in_channels=1)).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    assert (record.params, record.macs) == (job.slim.small.params, job.slim.small.macs)


def test_dense_is_the_dense_network_trained_by_a_plain_loop(sweep):
    job = paths.load_jobs(sweep)[-1]
    torch.manual_seed(0)
    expected = trained_by_hand(VGG(LAYERS, in_channels=1), epochs=3).state_dict()
    found = netslim.files.read_tensors(sweep / control(job, "dense").name / "weights.pt")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    assert control(job, "dense").macs == job.slim.dense.macs


def test_uniform_takes_the_same_share_of_every_layer_or_the_methods_macs(sweep):
    for job in paths.load_jobs(sweep):
        assert list(control(job, "uniform").widths.values()) == [4, 4, 2]
        found = control(job, "uniform-macs")
        shares = [kept / of for kept, of in zip(found.widths.values(), (8, 8, 4), strict=True)]
        assert max(shares) - min(shares) <= 1 / 4
        assert found.macs <= job.slim.small.macs
        a, b, c = found.widths.values()
        assert found.macs == 9 * (64 * a + 16 * a * b + 16 * b * c) + 10 * c


def test_random_keeps_other_channels_of_the_trained_network_but_as_many(sweep, job_of):
    (job, _) = paths.load_jobs(sweep)
    assert list(control(job, "random").widths.values()) == [layer.kept for layer in job.slim.layers]
    asked, images = job_of(ALL), torch.randn(3, 1, 8, 8)
    data = asked.data(seed=0)
    trained = Finished(sweep / job.train.name, job.train)
    dense = network_after(asked, data, [trained])
    drawn = control_networks.drawn(asked, data, trained, job.slim)
    rows = {tuple(row.flatten().tolist()): place for place, row in enumerate(dense.features[0].weight)}
    places = [rows[tuple(row.flatten().tolist())] for row in drawn.features[0].weight]  # all are of the trained network
    assert len(set(places)) == job.slim.layers[0].kept
    keep = {layer.name: torch.zeros(layer.channels, dtype=torch.bool) for layer in job.slim.layers}
    score = Random(Uniform())(dense, seed=0)
    for layer in job.slim.layers:
        keep[layer.name][score.value[layer.name].argsort(descending=True)[: layer.kept]] = True
    torch.testing.assert_close(drawn.eval()(images), netslim.mask(dense, keep).eval()(images))
    by_score = netslim.select_channels(dense, 0.5, torch.zeros(1, 1, 8, 8))
    assert any(not torch.equal(keep[name], by_score[name]) for name in keep)


def test_random_gets_what_the_slim_stage_does_before_fine_tuning(sweep, job_of):
    """Oracles: rescaling changes γ and not the function, a fit to the dense network both."""
    (job, _) = paths.load_jobs(sweep)
    trained = Finished(sweep / job.train.name, job.train)

    def drawn(*words: str) -> tuple[torch.Tensor, torch.Tensor]:
        asked = job_of(ALL, *words)
        network = control_networks.drawn(asked, asked.data(seed=0), trained, job.slim).eval()
        return network(IMAGES).detach(), network.features[1].weight.detach()

    plain, gamma = drawn()
    rescaled, one = drawn("slimming.rescale=true")
    fitted, _ = drawn("slimming.reconstruct=100")
    torch.testing.assert_close(rescaled, plain, rtol=1e-3, atol=1e-4)
    assert one.abs().mean().item() == pytest.approx(1.0)
    assert gamma.abs().mean().item() != pytest.approx(1.0)
    assert not torch.allclose(fitted, plain, rtol=1e-2)


def test_a_second_run_trains_nothing(sweep, monkeypatch, job_of):
    monkeypatch.setattr(fitting, "fit", lambda *_, **__: pytest.fail("it trains"))
    before = [(sweep / job.train.name / "record.json").stat().st_mtime_ns for job in paths.load_jobs(sweep)]
    pipeline.run(sweep, job_of(ALL))
    assert before == [(sweep / job.train.name / "record.json").stat().st_mtime_ns for job in paths.load_jobs(sweep)]


def test_controls_that_are_asked_for_later_join_the_jobs_record(tmp_path, job_of):
    for words in ([], ["controls=[dense]"], ["controls=[uniform]"], []):
        pipeline.run(tmp_path / "s", job_of(*words, "epochs=1"))
    (job,) = paths.load_jobs(tmp_path / "s")
    assert [record.stage for record in job.controls] == ["dense", "uniform"]


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_a_network_without_new_weights_is_refused_before_the_training(tmp_path, job_of):
    job = job_of("controls=[scratch]")
    unlike = nn.Sequential(VGG(LAYERS, in_channels=1), Scaled())
    with pytest.raises(
        ValueError, match=r"'1' of the network \(Scaled\) has parameters and no method reset_parameters"
    ):
        pipeline.run(tmp_path / "s", replace(job, network=lambda num_classes: unlike))
    assert not list(tmp_path.glob("s/*/record.json"))


def test_random_without_a_fine_tuning_is_refused(job_of):
    with pytest.raises(ValueError, match=r"controls=random: there is no fine-tuning \(finetune\.epochs=0\)"):
        pipeline.stages_of(job_of("controls=[random]", "finetune.epochs=0"))


def test_controls_of_a_job_that_trains_nothing_are_refused(job_of):
    job = replace(job_of("controls=[dense]", "finetune.epochs=0"), epochs=0)
    with pytest.raises(ValueError, match=r"controls: the job trains nothing \(epochs=0, finetune\.epochs=0\)"):
        pipeline.stages_of(job)


def test_a_network_that_gets_smaller_inside_its_training_has_controls_but_for_random(tmp_path, job_of):
    words = ["schedule=gradual", "epochs=4", "finetune.epochs=0", "controls=[scratch,scratch_b,uniform_macs]"]
    pipeline.run(tmp_path, job_of(*words))
    (job,) = paths.load_jobs(tmp_path)
    kept = [layer.kept for layer in job.cut.layers]
    assert sum(kept) == 10
    assert list(control(job, "scratch").widths.values()) == list(control(job, "scratch-b").widths.values()) == kept
    spent = sum(epoch.macs for epoch in job.train.cut.epochs)
    epochs = {record.stage: len(record.epochs) for record in job.controls}
    assert epochs == {"scratch": 4, "scratch-b": round(spent / job.cut.small.macs), "uniform-macs": 4}
    with pytest.raises(ValueError, match="controls=random: the channels are removed inside the training"):
        pipeline.stages_of(job_of(*words, "controls=[random]"))


def test_controls_of_equal_widths_are_trained_once(tmp_path, job_of, monkeypatch):
    """Oracle: the same control in a folder of its own, trained."""
    uniform = ["score=uniform", "controls=[scratch,uniform]"]
    pipeline.run(tmp_path / "alone", job_of(*uniform, "slimming.floor=2"))
    pipeline.run(tmp_path / "s", job_of(*uniform))
    trainings, fit_task = [], controls.fit_task
    monkeypatch.setattr(controls, "fit_task", lambda *given: trainings.append(given) or fit_task(*given))
    pipeline.run(tmp_path / "s", job_of(*uniform, "slimming.floor=2"))  # another stage, but it removes the same
    assert trainings == []
    (alone,) = paths.load_jobs(tmp_path / "alone")
    one, two = sorted(paths.load_jobs(tmp_path / "s"), key=lambda job: control(job, "scratch").same_as)
    for kind in ("scratch", "uniform"):
        first, second, trained = control(one, kind), control(two, kind), control(alone, kind)
        assert first.name != second.name == trained.name
        assert (first.same_as, second.same_as) == ("", first.name)
        assert (second.test, second.widths, second.epochs) == (trained.test, trained.widths, trained.epochs)
        tensors = [files.read_tensors(tmp_path / place / trained.name / "slim.pt")["state"] for place in ("s", "alone")]
        assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[1])


def test_controls_of_other_widths_seeds_or_recipes_are_trained(tmp_path, job_of):
    wide = ["controls=[scratch]"]
    for words in ([], ["ratio=0.6"], ["seed=1"], ["epochs=3"], ["optimizer.lr=0.01"]):
        pipeline.run(tmp_path / "s", job_of(*wide, *words))
    assert [control(job, "scratch").same_as for job in paths.load_jobs(tmp_path / "s")] == [""] * 5
