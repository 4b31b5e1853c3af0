"""Files that are valid JSON, but not what netslim writes: one line that names the file and what is wrong."""

import json

import pytest

from netslim.experiment import paths, records

KIND_OF = {"sweep.json": "sweep", "record.json": "job", "settings.json": "settings", "scales.json": "scales"}
JOB = {"lambda": 0.1, "ratio": 0.5, "seed": 0, "train": "train_x", "slim": "slim_x", "finetune": None, "command": "c"}


@pytest.mark.parametrize("content", [{}, [], None, 5, "s", True, {"a": 1}], ids=repr)
@pytest.mark.parametrize("name", KIND_OF)
def test_other_content_is_named(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    fits = isinstance(content, dict) and (name == "settings.json" or (name == "scales.json" and not content))
    if fits:
        assert records.read(path, KIND_OF[name]) == content
        return
    with pytest.raises(ValueError, match=rf"{name} is not as netslim writes it \(.*\); remove .* and run the command"):
        records.read(path, KIND_OF[name])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"test": {"correct": 1}}, "the record, test has no 'total'"),
        ({"test": None}, "the record, test is None"),
        ({"epochs": []}, "the record, epochs is empty"),
        ({"epochs": [{"epoch": 1, "train_accuracy": 0.5}, {"epoch": 2}]}, "the record, epochs, 1 has no 'train_acc"),
        ({"run": {"versions": {}}}, "the record, run has no 'started'"),
        ({"name": 5}, "the record, name is 5"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change, fault):
    run = {"started": "now", "seconds": 1, "command": "c", "versions": {}, "hardware": "h"}
    whole = {
        "name": "n",
        "epochs": [{"epoch": 1, "train_accuracy": 0.5}],
        "test": {"correct": 1, "total": 2},
        "run": run,
    }
    assert records.wrong(whole, records.SHAPES["finetune"], "the record") == ""
    assert records.wrong({**whole, **change}, records.SHAPES["finetune"], "the record").startswith(fault)


@pytest.mark.parametrize("content", ["[]", "5", "{}"])
def test_a_stage_and_a_job_with_other_records(content, tmp_path):
    folder = tmp_path / f"train_seed=0_{paths.digest({})}"
    folder.mkdir()
    (folder / "record.json").write_text(content)
    with pytest.raises(ValueError, match="remove the folder"):
        paths.stage(tmp_path, "train", {}, lambda _: {}, seed=0)
    (tmp_path / "job_x").mkdir()
    (tmp_path / "job_x" / "record.json").write_text(content)
    with pytest.raises(ValueError, match=r"job_x/record\.json is not as netslim writes it"):
        paths.load_jobs(tmp_path)
