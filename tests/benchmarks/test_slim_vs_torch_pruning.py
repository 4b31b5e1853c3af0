"""The benchmark measures what it says: toys whose channels are known, tables by hand, one quick run of the command."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import slim_vs_torch_pruning as bench
import tables
import torch
from torch import Tensor, nn

import netslim


def toy() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 1, groups=4, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
    )


def first_two(model: nn.Module, ratio: float, x: Tensor) -> nn.Module:
    """A tool that always keeps the first two channels."""
    keep = {name: torch.arange(4) < 2 for name in ("1", "4")}
    return netslim.slim(model, keep, example_input=x)


def wrong(model: nn.Module, ratio: float, x: Tensor) -> nn.Module:
    """A tool that spoils what it keeps."""
    small = first_two(model, ratio, x)
    small[-1].weight.data *= 1.001
    return small


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 3, 8, 8)


def test_kept_channels_are_read_off_the_result(x: Tensor) -> None:
    model = toy().eval()
    model[4].weight.data[1] = 0.0  # in place, but without effect
    model[1].running_mean = torch.tensor([0.5, -0.5, 1.5, 2.5])
    small, kept = bench.shrink(first_two, model, 0.5, x[:1])
    assert kept["1"].tolist() == [True, True, False, False]
    assert kept["4"].tolist() == [True, False, False, False]
    assert small[1].running_mean.tolist() == [0.5, -0.5]
    assert (bench.channels(model), bench.channels(small)) == (8, 4)


def test_a_right_tool_has_no_deviation_and_a_wrong_one_has(x: Tensor) -> None:
    model = toy().eval()
    small, kept = bench.shrink(first_two, model, 0.5, x[:1])
    assert bench.deviation(small, model, kept, x) < tables.TOLERANCE
    assert bench.step(small, x) is True
    small, kept = bench.shrink(wrong, model, 0.5, x[:1])
    assert bench.deviation(small, model, kept, x) > 1e-4
    with pytest.raises(ArithmeticError, match="the loss is nan"):
        bench.step(small, x * torch.nan)


def test_a_deviation_between_constants_proves_nothing(x: Tensor) -> None:
    model = toy().eval()
    nn.init.zeros_(model[-1].weight)
    small, kept = bench.shrink(first_two, model, 0.5, x[:1])
    with pytest.raises(ArithmeticError, match="do not depend on the input"):
        bench.deviation(small, model, kept, x)


def test_a_gamma_matters_unless_the_other_side_of_its_channel_is_dead(x: Tensor) -> None:
    model, marks = bench.half_dead(toy(), x)
    live = marks["live"]
    for name, bn in netslim.bn_layers(model).items():
        assert int(live[name].sum()) == 2
        assert torch.equal(bn.weight != 0, live[name])
        assert torch.equal(marks["mattering"][name], live["1"] & live["4"])


def test_lost_is_a_share_of_the_marked() -> None:
    marks = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True, True, False])}
    stays = {"a": torch.tensor([True, False, False]), "b": torch.tensor([True, True, True])}
    assert bench.lost(marks, stays) == 0.25


def test_a_failing_tool_is_a_line_of_text() -> None:
    assert bench.attempt(lambda: 1 // 0).startswith("ZeroDivisionError: ")


def row(network: str, **changed: object) -> tables.Row:
    given: tables.Row = {"network": network}
    for tool, time in (("group", 0.5), ("keep", 9.0), ("scatter", 9.0), ("torch_pruning", 2.0)):
        given |= {f"seconds_{tool}": time, f"cpu_{tool}": time**2, f"deviation_{tool}": 1e-14, f"step_{tool}": True}
        given |= {f"removed_{ratio}_{tool}": ratio for ratio in tables.RATIOS}
        given |= {f"params_{ratio}_{tool}": ratio + 0.05 for ratio in tables.RATIOS}
        given |= {f"macs_{ratio}_{tool}": ratio - 0.05 for ratio in tables.RATIOS}
        given |= {f"{which}_lost_{tool}": 0.125 for which in ("live", "mattering")} | {f"gone_{tool}": 0.25}
        given |= {f"speed_{tool}": time}
    return given | changed


def test_tables_say_what_was_measured() -> None:
    crash = {
        f"{what}_torch_pruning": "KeyError: 'a'"
        for what in ("seconds", "cpu", "step", "deviation", "live_lost", "mattering_lost", "gone", "speed")
    }
    wrong = row("wrong", deviation_torch_pruning=0.31)
    rows = [row("right"), wrong, row("fails", **crash), row("ours", deviation_keep=1e-8)]
    text = tables.markdown(rows, "`command`")
    assert text.startswith("`command`\n\n| network | netslim s | Torch-Pruning s |")
    assert "| right | 0.50 | 2.00 | 4.0 | 16.0 | yes | yes | yes | yes |" in text
    assert "| wrong | 0.50 | 2.00 | 4.0 | 16.0 | yes | no (0.3) | yes | yes |" in text
    assert "| fails | 0.50 | fails | – | – | yes | no (KeyError) | yes | no (KeyError) |" in text
    assert "| ours | 0.50 | 2.00 | 4.0 | 16.0 | no (1e-08) | yes | yes | yes |" in text
    assert "Right (equal, and trains) on 3 of 4 networks, Torch-Pruning on 2; 4.0 to 4.0 times as fast" in text
    assert "| right |" + 4 * " 30.0% |" + 4 * " 50.0% |" + 4 * " 90.0% |" in text
    assert "| right |" + 4 * " 35.0% |" + 4 * " 55.0% |" + 4 * " 95.0% |" in text
    assert "| right |" + 4 * " 25.0% |" + 4 * " 45.0% |" + 4 * " 85.0% |" in text
    assert "| fails |" + 2 * (3 * " 12.5% |" + " fails |") + 3 * " 25.0% |" + " fails |" in text
    assert "| right | 9.00 | 0.50 | 9.00 | 2.00 |" in text
    assert "| fails | 9.00 | 0.50 | 9.00 | fails |" in text
    assert "- fails, step_torch_pruning: KeyError: 'a'" in text
    lines = list(csv.DictReader(tables.csv_text(rows).splitlines()))
    assert [line["network"] for line in lines] == ["right", "wrong", "fails", "ours"]
    assert lines[1]["deviation_torch_pruning"] == "0.31"


@pytest.mark.slow
def test_the_command_runs_two_networks(tmp_path: Path) -> None:
    out = tmp_path / "new" / "bench.md"
    command = [sys.executable, bench.__file__, "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split(" | ")[0] for line in done.stderr.splitlines() if " of 2 | " in line] == ["1 of 2", "2 of 2"]
    assert out.read_text() in done.stdout
    assert "Right (equal, and trains) on 2 of 2 networks, Torch-Pruning on 2" in done.stdout
    rows = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    for found in rows:
        assert float(found["mattering_lost_keep"]) == float(found["mattering_lost_scatter"]) == 0
        assert float(found["speed_scatter"]) > 0
        assert 0.49 < float(found["removed_0.5_group"]) <= 0.5
