"""What is left of a plan. Oracle: records written by hand."""

from netslim.experiment.plan import epochs_after, unfinished


def test_what_is_finished_or_at_work_is_not_left(tmp_path):
    plan = {str(tmp_path / name): epochs for name, epochs in {"a": 10, "b": 20, "slim": 0, "c": 40}.items()}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "record.json").touch()
    (tmp_path / "b").mkdir()  # begun
    assert unfinished(plan) == {str(tmp_path / "b"): 20, str(tmp_path / "slim"): 0, str(tmp_path / "c"): 40}
    assert epochs_after(plan, tmp_path / "b") == 40
    assert epochs_after(plan, tmp_path / "c") == 20
