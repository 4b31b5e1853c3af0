"""Folders and files of a sweep: whole or not at all, written once, one process at a time."""

import pytest
import torch

from netslim import files
from netslim.experiment import paths
from netslim.experiment.networks import require_file
from netslim.experiment.records import Test

RUN = {"started": "now", "seconds": 1, "command": "c", "versions": {}, "hardware": "h"}
TEST = {"correct": 1, "total": 2}
SIZE = {"params": 4, "macs": 9, "test": TEST}
TRAIN = {
    "network": "vgg", "data": "d", "budget": 0.5, "epochs": [{"epoch": 1, "train_accuracy": 0.5}], "test": TEST,
    "run": RUN,
}  # fmt: skip
SLIM = {
    "threshold": 0.1, "removed": 1, "prunable": 2, "layers": [{"name": "bn", "channels": 2, "kept": 1}],
    "dense": SIZE, "slim": SIZE, "recalibrated": {"test": TEST}, "run": RUN,
}  # fmt: skip


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "record.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    with pytest.raises(TypeError):
        files.write_bytes(path, "not bytes")
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_tensors_come_back_and_pickled_code_does_not(tmp_path):
    files.write_tensors(tmp_path / "weights.pt", {"w": torch.arange(3)})
    assert files.read_tensors(tmp_path / "weights.pt")["w"].tolist() == [0, 1, 2]
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt")
    with pytest.raises(ValueError, match="holds more than tensors"):
        files.read_tensors(tmp_path / "module.pt")


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "record.json").write_text('{"half": ')
    with pytest.raises(ValueError, match=r"record\.json is not valid JSON"):
        files.read_json(tmp_path / "record.json")


def test_jobs_come_joined_and_in_order(tmp_path):
    for strength, ratio in [(1e-4, 0.9), (0.0, 0.5), (1e-4, 0.5)]:
        stages = {}
        for kind, content in (("train", TRAIN), ("slim", SLIM)):
            stages[kind] = f"{kind}_{strength}"
            files.write_json(tmp_path / stages[kind] / "record.json", {**content, "name": stages[kind]})
        files.write_json(tmp_path / stages["train"] / "scales.json", {"bn": [0.5]})
        folder = paths.job_folder(tmp_path, stages, lambda_=strength, ratio=ratio, seed=0)
        job = {"lambda": strength, "ratio": ratio, "seed": 0, **stages, "finetune": None, "command": "netslim"}
        files.write_json(folder / "record.json", job)
    jobs = paths.load_jobs(tmp_path)
    assert [(job.strength, job.ratio) for job in jobs] == [(0.0, 0.5), (1e-4, 0.5), (1e-4, 0.9)]
    assert jobs[0].train.scales == {"bn": [0.5]}
    assert jobs[0].slim.small.test == Test(correct=1, total=2)
    assert jobs[0].finetune is None


def test_labels_are_short_and_never_the_same_for_different_numbers():
    assert paths.label(lambda_=1e-5, seed=1234567) == "lambda=1e-05_seed=1234567"
    assert paths.label(lambda_=0.12345678) != paths.label(lambda_=0.12345679)


def test_no_sweep_and_a_job_without_its_stage_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        paths.load_jobs(tmp_path / "missing")
    job = {"lambda": 0, "ratio": 0.5, "seed": 0, "train": "train_gone", "slim": "s", "finetune": None, "command": "c"}
    files.write_json(tmp_path / "job_x" / "record.json", job)
    with pytest.raises(ValueError, match="train_gone has no record"):
        paths.load_jobs(tmp_path)


def test_a_missing_file_of_a_finished_stage_names_the_folder_to_remove(tmp_path):
    with pytest.raises(ValueError, match=r"weights.pt is missing; remove the folder .*train_x and give the command"):
        require_file(tmp_path / "train_x", "weights.pt")
