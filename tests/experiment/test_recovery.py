"""Reconstruction and rescaling in the slim stage. Oracles: accuracies counted without Lightning, γ of the file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import netslim
from netslim import report
from netslim.experiment.records import SlimRecord
from tests.experiment.test_schedules import correct, dense, jobs, run

ASKED = ["ratio=0.5", "epochs=2", "finetune.epochs=1", "slimming.reconstruct=32", "slimming.rescale=true"]


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("recovered")
    run(outputs, *ASKED)
    return outputs


def test_each_is_recorded_and_the_last_is_fine_tuned(recovered: Path) -> None:
    (job,) = jobs(recovered)
    assert job.slim
    assert job.slim.reconstructed
    assert job.slim.rescaled
    small = netslim.load(recovered / "s" / job.slim.name / "slim.pt", dense())
    assert job.slim.rescaled.test.correct == job.slim.reconstructed.test.correct == correct(small)
    means = {name: layer.weight.abs().mean().item() for name, layer in netslim.bn_layers(small).items()}
    assert means == pytest.approx(dict.fromkeys(job.slim.rescaled.factors, 1.0))
    assert job.slim.rescaled.left == {}
    assert list(job.slim.reconstructed.layers) == ["features.4", "features.7", "classifier"]
    assert all(after < before for before, after in job.slim.reconstructed.layers.values())
    assert job.slim.reconstructed.images == 32


def test_the_report_shows_them_where_there_are_any(recovered: Path) -> None:
    report.build(recovered / "s")
    page = (recovered / "s" / "report" / "report.md").read_text()
    assert "after reconstruction" in page
    assert "after rescaling" in page
    assert "Rescaling brings the γ of every layer to one size" in page
    (row,) = csv.DictReader((recovered / "s" / "report" / "results.csv").read_text().splitlines())
    (job,) = jobs(recovered)
    assert int(row["rescaled_correct"]) == job.slim.rescaled.test.correct  # type: ignore[union-attr]


def test_without_them_nothing_is_recorded_or_shown(tmp_path: Path) -> None:
    run(tmp_path, *ASKED[:3])
    (job,) = jobs(tmp_path)
    assert job.slim
    assert (job.slim.reconstructed, job.slim.rescaled) == (None, None)
    record = (tmp_path / "s" / job.slim.name / "record.json").read_text()
    assert "rescaled" not in record + (tmp_path / "s" / job.slim.name / "settings.json").read_text()
    report.build(tmp_path / "s")
    for name in ("report.md", "results.csv"):
        text = (tmp_path / "s" / "report" / name).read_text().lower()
        assert "reconstruct" not in text
        assert "rescal" not in text


def test_every_pass_is_fitted_to_the_network_before_it(tmp_path: Path) -> None:
    run(tmp_path, "schedule=passes", "schedule.passes=2", "ratio=0.6", "slimming.floor=0.1", *ASKED[1:])
    (job,) = jobs(tmp_path)
    rounds = [record for record in [*job.more, job.slim] if isinstance(record, SlimRecord)]
    assert len(rounds) == 2
    for record in rounds:
        assert record.reconstructed
        assert all(after < before for before, after in record.reconstructed.layers.values())
        small = netslim.load(tmp_path / "s" / record.name / "slim.pt", dense())
        assert record.rescaled
        assert record.rescaled.test.correct == correct(small)


def test_a_network_that_gets_smaller_meanwhile_has_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, "schedule=gradual", "epochs=4", "slimming.rescale=true")
    line = "slimming.rescale=True: a schedule that cuts inside the training trains on by itself; leave it at False"
    assert line in capsys.readouterr().err
