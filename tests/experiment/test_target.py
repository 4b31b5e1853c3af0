"""A target in place of the ratio, through the command. Oracle: what is counted on the saved networks."""

import csv
from pathlib import Path

import pytest
import torch

import netslim
from netslim.experiment import paths
from netslim.nets import VGG
from tests.commands import small as run


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    run(outputs, "target_macs=0.6")
    run(outputs, "target_params=0.7")
    run(outputs, "target_params=0.3", "slimming.floor=4", "finetune.epochs=0", "name=floor")
    return outputs / "lab"


def test_the_networks_meet_what_was_asked_for(lab):
    by_macs, by_params = sorted(paths.load_jobs(lab), key=lambda job: job.of)
    dense = VGG([8, "M", 12], num_classes=4)
    x = torch.zeros(1, 3, 8, 8)
    before = netslim.count(dense, x)
    for job, cost, most in ((by_macs, "macs", 0.6), (by_params, "params", 0.7)):
        small = netslim.load(lab / job.finetune.name / "slim.pt", dense)
        left = getattr(netslim.count(small, x), cost) / getattr(before, cost)
        assert most - 0.1 < left <= most  # a channel is worth up to 10 %


def test_folders_and_records_say_what_was_asked_for(lab):
    kinds = {path.name.rsplit("_", 1)[0] for path in lab.iterdir() if path.is_dir()}
    assert kinds >= {
        "train_lambda=0.01_seed=0",
        *(f"{kind}_lambda=0.01_{asked}_seed=0" for kind in ("slim", "finetune", "job")
          for asked in ("target_macs=0.6", "target_params=0.7")),
    }  # fmt: skip
    by_macs, by_params = sorted(paths.load_jobs(lab), key=lambda job: job.of)
    assert (by_macs.target, by_macs.ratio, by_macs.of) == ({"target_macs": 0.6}, 0.4, "MACs")
    assert (by_params.target, by_params.ratio, by_params.of) == ({"target_params": 0.7}, 0.3, "parameters")
    assert by_macs.slim.ratio is None
    assert by_macs.slim.target == by_macs.target


def test_the_report_says_it(lab):
    text = (lab / "report" / "report.md").read_text()
    assert "pruning at 40 % of MACs and 30 % of parameters" in text
    assert "removed of=MACs" in text  # two groups, never averaged
    assert "not finished yet" not in text
    with (lab / "report" / "results.csv").open(newline="") as file:
        assert {(row["ratio"], row["ratio_of"]) for row in csv.DictReader(file)} == {
            ("0.4", "MACs"),
            ("0.3", "parameters"),
        }


def test_layers_that_end_at_their_floor_are_told(lab):
    (job,) = paths.load_jobs(lab.with_name("floor"))
    ends = [layer.name for layer in job.slim.layers if layer.kept == 4]
    assert job.slim.at_floor == ends
    assert ends
    assert f"At their floor there end {ends[0]}" in (lab.with_name("floor") / "report" / "report.md").read_text()


WRONG = {
    "target_macs=1.5": "target_macs must be in (0, 1], got 1.5; a whole number over 1 means that many multiply-adds",
    "target_macs=half": "target_macs=half is not a number",
    "target_macs=0.5 target_params=0.5": "target_macs=0.5 and target_params=0.5 both say how much is removed",
    "ratio=0.3 target_macs=0.5": "ratio=0.3 and target_macs=0.5 both say how much is removed; give one of them",
    "ratio=null": "ratio=None is not a number",
    "target_macs=0.01": "target_macs 0.01 is out of reach: at least 0.",
    "slimming.target_macs=0.5": "there is no setting 'slimming.target_macs' here; write target_macs=…",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_is_refused(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as refused:
        run(tmp_path, *words.split())
    assert refused.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert WRONG[words] in line
    assert not list(tmp_path.glob("*/*/weights.pt"))


def test_a_network_that_gets_smaller_while_it_trains(tmp_path, capsys):
    """The ramp is one of the multiply-adds: 1 − (1 − p)³ of what is to be saved."""
    run(tmp_path, "schedule=gradual", "schedule.start=0", "schedule.end=1", "epochs=4", "target_macs=0.5")
    (job,) = paths.load_jobs(tmp_path / "lab")
    assert (job.slim, job.of, job.ratio) == (None, "MACs", 0.5)
    macs = [shape.macs for shape in job.train.cut.epochs]
    allowed = [macs[0] * (1 - 0.5 * (1 - (1 - epoch / 4) ** 3)) for epoch in range(4)]
    assert all(cost <= limit for cost, limit in zip(macs, allowed, strict=True))
    assert 0.35 < job.cut.macs_left <= 0.5
    with pytest.raises(SystemExit):
        run(tmp_path, "schedule=passes", "target_macs=0.5")
    assert "the rounds of Passes remove shares of the channels; give a ratio with it" in capsys.readouterr().err
