"""Folders and files of a sweep: whole or not at all, written once, one process at a time."""

import json
import multiprocessing
import time

import pytest
import torch

from netslim import files
from netslim.experiment import paths
from netslim.experiment.records import Test
from netslim.measure import environment

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


def test_a_finished_stage_is_not_done_again_and_a_changed_setting_is_another_stage(tmp_path):
    calls = []

    def work(folder):
        calls.append(folder.name)
        return {"value": len(calls)}

    first = paths.stage(tmp_path, "train", {"lr": 0.1}, work, lambda_=1e-4, seed=0)
    again = paths.stage(tmp_path, "train", {"lr": 0.1}, work, lambda_=1e-4, seed=0)
    other = paths.stage(tmp_path, "train", {"lr": 0.2}, work, lambda_=1e-4, seed=0)
    assert first == again
    assert (first["value"], other["value"]) == (1, 2)
    assert first["name"].startswith("train_lambda=0.0001_seed=0_")
    assert first["lambda"] == 1e-4


def test_a_stage_that_another_version_made_is_reused_with_a_word(tmp_path, caplog):
    def made_with(torch):
        return lambda folder: {"run": {"versions": {**now, "torch": torch}}}

    now = environment.versions()
    for seed, work in enumerate((made_with("1.13"), made_with(now["torch"]))):
        first = paths.stage(tmp_path, "train", {}, work, seed=seed)
        assert paths.stage(tmp_path, "train", {}, work, seed=seed) == first
    (message,) = caplog.messages
    assert message.startswith(f"train_seed=0_{paths.digest({})}: reused, it was made with torch 1.13, now ")


def test_an_interrupted_stage_finds_what_it_left(tmp_path):
    def dies(folder):
        (folder / "last.ckpt").write_text("half way")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        paths.stage(tmp_path, "train", {}, dies, seed=0)
    record = paths.stage(tmp_path, "train", {}, lambda f: {"found": (f / "last.ckpt").read_text()}, seed=0)
    assert record["found"] == "half way"
    assert not (tmp_path / record["name"] / "last.ckpt").exists()  # of no use once the stage is finished


def test_a_foreign_record_is_refused(tmp_path):
    record = paths.stage(tmp_path, "train", {}, lambda f: {}, seed=0)
    path = tmp_path / record["name"] / "record.json"
    path.write_text(json.dumps({**record, "name": "train_other"}))
    with pytest.raises(ValueError, match="train_other"):
        paths.stage(tmp_path, "train", {}, lambda f: {}, seed=0)


def _slow_stage(sweep, log):
    def work(folder):
        with open(log, "a") as file:
            file.write("worked\n")
        time.sleep(0.5)
        return {}

    paths.stage(sweep, "train", {}, work, seed=0)


def test_two_processes_that_meet_at_a_stage_do_it_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_slow_stage, args=(tmp_path / "sweep", tmp_path / "log")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "worked\n"


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
        stages = {
            kind: paths.stage(tmp_path, kind, {}, lambda f, content=content: content, lambda_=strength)["name"]
            for kind, content in (("train", TRAIN), ("slim", SLIM))
        }
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


def _holds(folder, held):
    def work(folder):
        held.set()
        time.sleep(600)

    paths.stage(folder, "train", {}, work, seed=0)


def test_the_lock_and_the_scraps_of_a_killed_process_are_in_nobodys_way(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    process = spawn.Process(target=_holds, args=(tmp_path, held))
    process.start()
    assert held.wait(60)
    (folder,) = tmp_path.iterdir()
    (folder / ".last.ckpt.x7a").write_text("half")
    process.kill()
    process.join()
    assert (folder / ".lock").exists()
    assert paths.stage(tmp_path, "train", {}, lambda _: {"done": True}, seed=0)["done"]
    assert not (folder / ".last.ckpt.x7a").exists()


def test_a_missing_file_of_a_finished_stage_names_the_folder_to_remove(tmp_path):
    with pytest.raises(ValueError, match=r"weights.pt is missing; remove the folder .*train_x and give the command"):
        paths.made(tmp_path / "train_x", "weights.pt")
