"""netslim beside torch-pruning's BNScalePruner, on the same networks, inputs and threads: `make bench`.

Measured:

    seconds     analysis and removal of half the channels: select_channels + slim; BNScalePruner(...) + step().
                float32, batch of one, median of the repeats, the tools in turn; cpu: the processor's time for it
    removed     share of all BN channels that are gone, at asked ratios of 0.3, 0.5 and 0.9; likewise of the parameters
                and of the multiply-adds
    deviation   of the smaller network from the dense one with γ = β = 0 on the removed channels: float64, eval mode,
                the largest, relative to the spread of the outputs over the inputs
    step        does a forward and backward pass in train mode work, auxiliary heads and all?
    live lost   half of each BN layer's γ are 0 and half of all channels are asked for: share of the other γ that goes
    mattering lost   the same, of those γ only whose channel is not made constant by another layer's 0
    gone        the share of all BN channels that the network gets rid of then
    speed       of a forward pass when half of the channels are asked for: times as fast as the dense network; float32,
                eval mode, batch of three, median of the repeats, the networks in turns

The networks and the tools are in slim_sides.py. A tool that fails makes a cell of the table, not the end of the run.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from slim_sides import NETWORKS, TOOLS, Marks, build, set_zero, shrink
from tables import RATIOS, Row, csv_text, markdown, right_cells
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import netslim
from netslim.measure.environment import hardware

QUICK = {"networks": "resnet18,mobilenet_v3_small", "repeats": 1, "size": 64}


def seconds(model: nn.Module, x: Tensor, repeats: int) -> Row:
    """Median seconds of each tool, by the clock and of the processor. The first round warms up and is not counted."""
    spent: dict[str, list[tuple[float, float]]] = {tool: [] for tool in TOOLS}
    failed: dict[str, str] = {}
    for _ in range(repeats + 1):
        for name, tool in TOOLS.items():
            own = copy.deepcopy(model)
            gc.collect()
            start = time.perf_counter(), time.process_time()
            result = attempt(partial(tool, own, 0.5, x))
            spent[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
            if isinstance(result, str):
                failed[name] = result
    row: Row = {}
    for name, runs in spent.items():
        clock, processor = (statistics.median(column) for column in zip(*runs[1:], strict=True))
        row |= {f"seconds_{name}": failed.get(name, clock), f"cpu_{name}": failed.get(name, processor)}
    return row


def channels(model: nn.Module) -> int:
    return sum(len(bn.weight) for bn in netslim.bn_layers(model).values())


def params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, x: Tensor) -> int:
    return netslim.count(model, x).macs


def share(of: Callable[[nn.Module], int], small: nn.Module, model: nn.Module) -> float:
    """How much less the smaller network has of it."""
    return 1 - of(small) / of(model)


def deviation(small: nn.Module, model: nn.Module, kept: Marks, x: Tensor) -> float:
    masked = set_zero(copy.deepcopy(model), {name: ~stays for name, stays in kept.items()})
    with torch.no_grad():
        expected, got = (copy.deepcopy(m).double().eval()(x.double()) for m in (masked, small))
    spread = float(expected.std(0).mean())
    if not spread > 1e-6 * float(expected.abs().mean()):
        raise ArithmeticError("the outputs do not depend on the input, so this comparison would prove nothing")
    return float((expected - got).abs().max()) / spread


def step(small: nn.Module, x: Tensor) -> bool:
    loss = backward(small.train(), x)
    if not loss.isfinite():
        raise ArithmeticError(f"the loss is {float(loss)}")
    return True


def backward(model: nn.Module, x: Tensor) -> Tensor:
    """A backward pass from a loss that all outputs take part in."""
    outs = [out for out in tree_leaves(model(x)) if isinstance(out, Tensor)]
    loss = torch.stack([(out.log_softmax(1) * torch.randn_like(out)).mean() for out in outs]).sum()
    loss.backward()
    return loss.detach()


def half_dead(model: nn.Module, x: Tensor) -> tuple[nn.Module, dict[str, Marks]]:
    """Half of each layer's γ set to 0; the others, and those of the others that matter.

    A channel that is 0 or constant is normalised to 0 in train mode, so the gradient of its γ is 0 there.
    """
    model = copy.deepcopy(model)
    layers = netslim.bn_layers(model)
    live = {name: torch.randperm(len(bn.weight)) >= len(bn.weight) // 2 for name, bn in layers.items()}
    set_zero(model, {name: ~marked for name, marked in live.items()})
    backward(model.train(), x)
    gradients = {name: bn.weight.grad.abs() for name, bn in layers.items()}
    matter = {name: live[name] & (gradient > 1e-6 * gradient.max()) for name, gradient in gradients.items()}
    model.zero_grad()
    return model.eval(), {"live": live, "mattering": matter}


def lost(marks: Marks, stays: Marks) -> float:
    """Share of the marked channels that do not stay."""
    return sum(int((marks[n] & ~stays[n]).sum()) for n in marks) / sum(int(m.sum()) for m in marks.values())


def attempt(work: Callable[[], Any]) -> Any:
    """The result, or one line of text about why there is none."""
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]


def rightness(label: str, model: nn.Module, x: Tensor) -> Row:
    """What the tool does to the network at each ratio, and whether it does it right."""
    row: Row = {}
    for ratio in RATIOS:
        result = attempt(partial(shrink, TOOLS[label], model, ratio, x[:1]))
        failed = isinstance(result, str)
        for what, left in (("removed", channels), ("params", params), ("macs", partial(macs, x=x[:1]))):
            row[f"{what}_{ratio}_{label}"] = result if failed else attempt(partial(share, left, result[0], model))
        if ratio == 0.5:
            row[f"deviation_{label}"] = (
                result if failed else attempt(partial(deviation, result[0], model, result[1], x))
            )
            row[f"step_{label}"] = result if failed else attempt(partial(step, result[0], x))
    return row


def losses(label: str, model: nn.Module, marks: dict[str, Marks], x: Tensor) -> Row:
    """Which of the marked channels the tool removes."""
    result = attempt(partial(shrink, TOOLS[label], model, 0.5, x[:1]))
    failed = isinstance(result, str)
    row: Row = {f"{which}_lost_{label}": result if failed else lost(marks[which], result[1]) for which in marks}
    return row | {f"gone_{label}": result if failed else share(channels, result[0], model)}


def speeds(model: nn.Module, x: Tensor, repeats: int) -> Row:
    """How much faster than the dense network each tool's is, half of the channels asked for."""
    networks: dict[str, Any] = {"dense": model.eval()}
    for label, tool in TOOLS.items():
        result = attempt(partial(shrink, tool, model, 0.5, x[:1]))
        networks[label] = result if isinstance(result, str) else result[0].eval()
    spent: dict[str, list[float]] = {label: [] for label in networks}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for label, network in networks.items():
                start = time.perf_counter()
                if not isinstance(network, str):
                    network(x)
                spent[label].append(time.perf_counter() - start)
    medians = {label: statistics.median(runs[1:]) for label, runs in spent.items()}
    return {
        f"speed_{label}": networks[label] if isinstance(networks[label], str) else medians["dense"] / medians[label]
        for label in TOOLS
    }


def measure(name: str, size: int, repeats: int) -> Row:
    torch.manual_seed(0)
    model, x = build(name), torch.randn(3, 3, size, size)
    netslim.recalibrate(model, [x])
    dead, marks = half_dead(model, x)
    row: Row = {"network": name, "input": size, "bn_channels": channels(model), **seconds(model, x[:1], repeats)}
    for label in TOOLS:
        row |= rightness(label, model, x) | losses(label, dead, marks, x)
        gc.collect()
    return row | speeds(model, x, repeats)


def header(command: str, repeats: int) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("netslim", "torch-pruning", "torch", "torchvision"))
    now = datetime.now(timezone.utc).isoformat(timespec="minutes")
    load = f"load average {os.getloadavg()[0]:.1f} at the start"
    return f"`{command}`, {now}\n\n{packages}; {hardware()}; {load}; {repeats} timed repeats"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="netslim beside torch-pruning's BNScalePruner")
    parser.add_argument("--networks", default=NETWORKS, help="names of torchvision, with commas between")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats, after one that warms up")
    parser.add_argument(
        "--size", type=int, default=224, help="height and width of the input, at least 299 for inception_v3"
    )
    parser.add_argument("--quick", action="store_true", help="two small networks, small input: does it work at all?")
    parser.add_argument("--out", type=Path, help="file for the tables; the numbers go beside it as .csv")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


def main() -> None:
    options = arguments()
    top = header(shlex.join(["python", "tests/benchmarks/slim_vs_torch_pruning.py", *sys.argv[1:]]), options.repeats)
    rows: list[Row] = []
    names = options.networks.split(",")
    for name in names:
        start = time.perf_counter()
        rows.append(measure(name, max(options.size, 299 if name == "inception_v3" else 0), options.repeats))
        cells, spent = " | ".join(right_cells(rows[-1])), time.perf_counter() - start
        print(f"{len(rows)} of {len(names)} | {cells} | {spent:.0f} s", file=sys.stderr, flush=True)
        if options.out:  # after every network, so that a run that is stopped leaves what it has
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(markdown(rows, top))
            options.out.with_suffix(".csv").write_text(csv_text(rows))
    print(markdown(rows, top), csv_text(rows), sep="\n", end="")


if __name__ == "__main__":
    main()
