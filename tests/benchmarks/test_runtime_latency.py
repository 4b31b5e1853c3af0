"""The table of files in ONNX Runtime: what it says of times that are known, and one network, run."""

import re
import sys

import published
import pytest
import runtime_latency as benchmark


def test_ratios_are_medians_of_the_turns():
    one = benchmark.Measured("net", 0.5, 2.0, dense=[3.0, 9.0, 4.0], slim=[2.0, 3.0, 2.5])
    assert (one.faster, one.gain) == (1.6, 0.8)  # of 1.5, 3, 1.6
    assert one.row() == "| net | 50% | 2.00 | 4.00 | 2.50 | 1.60 | 0.80 |\n"


def test_the_verdict():
    good = benchmark.Measured("a", 0.3, 2.0, dense=[3.0], slim=[2.0])
    slow = benchmark.Measured("b", 0.5, 1.6, dense=[3.0], slim=[4.0])
    assert benchmark.verdict([good]) == "\nSlower than dense: none. Least gain: 0.75, a 30%.\n"
    assert benchmark.verdict([good, slow]) == "\nSlower than dense: b 50%. Least gain: 0.47, b 50%.\n"


@pytest.mark.slow
def test_the_command_writes_the_record(tmp_path, monkeypatch, capsys):
    command = ["runtime_latency.py", "--networks", "vgg_small", "--seconds", "0.01", "--turns", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "record.md")])
    benchmark.main()
    record = (tmp_path / "record.md").read_text()
    assert record.startswith(f"`python {' '.join(command)}")
    assert re.search(r"onnxruntime [\d.]+; .*1 threads; load average", record)
    _, _, *rows = published.tables(record)[0].splitlines()
    assert [row.split(" | ")[:2] for row in rows] == [["| vgg_small", f"{ratio}%"] for ratio in (30, 50, 70)]
    assert all(float(row.split(" | ")[2]) > 1 for row in rows)
    assert capsys.readouterr().out.count("vgg_small") == 5  # the command, three rows, the verdict
