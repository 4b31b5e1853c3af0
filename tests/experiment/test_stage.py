"""A stage's folder: worked in once, by one process at a time, whole or not at all; its name is its settings."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from netslim.experiment import paths
from netslim.experiment.records import Run, StageRecord
from netslim.experiment.stage import Finished, Stage, determining, finish
from netslim.measure import environment

RUN = {"started": "now", "seconds": 1.0, "command": "c", "hardware": "h"}


class Left(StageRecord, kw_only=True, omit_defaults=True):
    value: int | None = None
    found: str = ""


def done(sweep: Path, kind: str, settings: dict, work, **labels: float) -> Left:
    """The record of a stage, worked or reused."""
    stage = Stage(kind, (), settings, lambda folder, _: work(folder), labels, Left)
    record = finish(sweep, stage, {}).record
    assert isinstance(record, Left)
    return record


def test_a_finished_stage_is_not_done_again_and_a_changed_setting_is_another_stage(tmp_path):
    calls = []

    def work(folder):
        calls.append(folder.name)
        return Left(value=len(calls))

    first = done(tmp_path, "train", {"lr": 0.1}, work, **{"lambda": 1e-4, "seed": 0})
    again = done(tmp_path, "train", {"lr": 0.1}, work, **{"lambda": 1e-4, "seed": 0})
    other = done(tmp_path, "train", {"lr": 0.2}, work, **{"lambda": 1e-4, "seed": 0})
    assert first.value == again.value
    assert (first.value, other.value) == (1, 2)
    assert first.name.startswith("train_lambda=0.0001_seed=0_")
    assert first.strength == 1e-4
    assert json.loads((tmp_path / first.name / "settings.json").read_text()) == {"lr": 0.1} == again.settings


def test_a_stage_gets_the_folders_and_records_of_those_it_comes_after(tmp_path):
    def first(folder, before):
        assert before == {}
        (folder / "weights").write_text("w")
        return Left(value=3)

    def second(folder, before):
        (only,) = before.values()
        return Left(value=only.record.value + 1, found=(only.folder / "weights").read_text())

    one = Stage("one", (), {}, first, record=Left)
    unused = Finished(tmp_path, Left())
    two = Stage("two", (one.name,), {"one": one.name}, second, record=Left)
    known = {one.name: finish(tmp_path, one, {}), "other": unused}
    record = finish(tmp_path, two, known).record
    assert (record.value, record.found, record.name) == (4, "w", two.name)
    assert two.name.startswith("two_")


def test_what_files_are_stands_in_the_name_for_where_they_are(tmp_path):
    def name(**settings) -> str:
        return Stage("train", (), settings, lambda *_: Left()).name

    here = name(data={"root": "/a", "flip": True}, identity={"data.root": "5d41"})
    there = name(data={"root": "/b", "flip": True}, identity={"data.root": "5d41"})
    other = name(data={"root": "/a", "flip": True}, identity={"data.root": "77aa"})
    assert here == there != other
    assert name(data={"root": "/a"}) == f"train_{paths.digest({'data': {'root': '/a'}})}"  # as before there were any
    settings = {"data": {"source": {"root": "/a"}}, "identity": {"data.source.root": "1"}}
    assert determining(settings) == {"data": {"source": {"root": "1"}}}
    assert settings["data"] == {"source": {"root": "/a"}}  # a copy was changed


def test_a_stage_that_another_version_made_is_reused_with_a_word(tmp_path, caplog):
    now = environment.versions()

    def made_with(torch):
        return lambda folder: Left(run=Run(**RUN, versions={**now, "torch": torch}))

    for seed, work in enumerate((made_with("1.13"), made_with(now["torch"]))):
        first = done(tmp_path, "train", {}, work, seed=seed)
        assert done(tmp_path, "train", {}, work, seed=seed).run == first.run
    (message,) = caplog.messages
    assert message.startswith(f"train_seed=0_{paths.digest({})}: reused, it was made with torch 1.13, now ")


def test_an_interrupted_stage_finds_what_it_left(tmp_path):
    def dies(folder):
        (folder / "last.ckpt").write_text("half way")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        done(tmp_path, "train", {}, dies, seed=0)
    record = done(tmp_path, "train", {}, lambda f: Left(found=(f / "last.ckpt").read_text()), seed=0)
    assert record.found == "half way"
    assert not (tmp_path / record.name / "last.ckpt").exists()  # of no use once the stage is finished


def test_a_foreign_record_is_refused(tmp_path):
    record = done(tmp_path, "train", {}, lambda f: Left(), seed=0)
    path = tmp_path / record.name / "record.json"
    path.write_text(json.dumps({"name": "train_other"}))
    with pytest.raises(ValueError, match="train_other"):
        done(tmp_path, "train", {}, lambda f: Left(), seed=0)


@pytest.mark.parametrize("content", ["[]", "5", "{}"])
def test_other_content_in_place_of_a_record_is_refused(content, tmp_path):
    folder = tmp_path / f"train_seed=0_{paths.digest({})}"
    folder.mkdir()
    (folder / "record.json").write_text(content)
    with pytest.raises(ValueError, match="remove the folder"):
        done(tmp_path, "train", {}, lambda _: Left(), seed=0)


def _slow_stage(sweep, log):
    def work(folder):
        with open(log, "a") as file:
            file.write("worked\n")
        time.sleep(0.5)
        return Left()

    done(sweep, "train", {}, work, seed=0)


def test_two_processes_that_meet_at_a_stage_do_it_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_slow_stage, args=(tmp_path / "sweep", tmp_path / "log")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "worked\n"


def _holds(folder, held):
    def work(folder):
        held.set()
        time.sleep(600)

    done(folder, "train", {}, work, seed=0)


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
    assert done(tmp_path, "train", {}, lambda _: Left(value=1), seed=0).value == 1
    assert not (folder / ".last.ckpt.x7a").exists()
