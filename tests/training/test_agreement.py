"""Ranks that were started for different jobs, or do not see one folder."""

import re

import pytest

from netslim.training import agreement, rendezvous

SETTINGS = {"seed": 0, "lambda": 1e-4, "net": {"name": "vgg19", "layers": [16, "M"]}, "finetune": {"lr": 0.1}}


def ranks(tmp_path, *changes):
    facts = [agreement.facts({**SETTINGS, **change}, tmp_path) for change in ({}, *changes)]
    return [(f"host{number}", fact) for number, fact in enumerate(facts)]


def test_equal_ranks_agree(tmp_path):
    agreement.check(ranks(tmp_path, {}, {}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 7}, "seed is 0 on rank 0 (host0) and 7 on rank 2 (host2)"),
        ({"net": {"name": "vgg16", "layers": [16, "M"]}}, "net.name is vgg19 on rank 0 (host0) and vgg16 on rank 2"),
        ({"net": {"name": "vgg19", "layers": [16]}}, "net.layers is [16, 'M'] on rank 0 (host0) and [16] on rank 2"),
        (
            {"net": {"name": "vgg19", "layers": [16, "M"], "depth": 3}},
            "net.depth is not set on rank 0 (host0) and 3 on",
        ),
        ({"seed": 7, "finetune": {"lr": 0.2}}, "seed is 0"),
    ],
)
def test_the_setting_that_differs_is_named(change, said, tmp_path):
    with pytest.raises(ValueError, match=re.escape(said)):
        agreement.check(ranks(tmp_path, {}, change))


def test_other_versions_are_named(tmp_path, monkeypatch):
    first, second = ranks(tmp_path, {})
    second[1]["the version of torch"] = "1.0"
    with pytest.raises(ValueError, match=r"the version of torch is \S+ on rank 0 \(host0\) and 1\.0 on rank 1"):
        agreement.check([first, second])


def test_another_working_directory_is_named(tmp_path):
    first = agreement.facts(SETTINGS, tmp_path / "outputs")
    second = agreement.facts(SETTINGS, tmp_path / "elsewhere" / "outputs")
    with pytest.raises(
        ValueError, match=f"the folder is {tmp_path}/outputs on rank 0 .* {tmp_path}/elsewhere/outputs on"
    ):
        agreement.check([("a", first), ("b", second)])


def test_a_file_that_appears_late_is_seen_and_one_that_does_not_is_given_up(tmp_path, monkeypatch, capsys):
    path = agreement.touch(tmp_path / "new")
    agreement.see(path, 1)
    path.unlink()
    assert list(path.parent.iterdir()) == []
    monkeypatch.setenv("NETSLIM_NODE_TIMEOUT", "1")
    monkeypatch.setattr(rendezvous, "NAMED_AFTER", 0.3)
    with pytest.raises(
        TimeoutError, match=f"rank 1 on .* does not see {tmp_path}/new, where rank 0 writes; given up after 1 s"
    ):
        agreement.see(path, 1)
    assert capsys.readouterr().err.startswith("netslim: waiting: rank 1 on ")
