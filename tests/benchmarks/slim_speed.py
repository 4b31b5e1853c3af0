"""A training step and the latency of a slim network beside the dense one, in turns, with the MACs of both.

The step is split by the profiler into what multiplies and adds (convolutions, matrix products: what MACs count) and
everything else (BatchNorm, ReLU, additions, selections, pooling, optimiser), which goes with the activations.

Which channels go matters: γ drawn at random thins all layers alike, and MACs fall with the square of the ratio. A
network trained with the penalty keeps its early, wide layers and loses the late ones, whose images are small.
"""

from __future__ import annotations

import copy
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from plain_loop import Clock
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import netslim
from netslim.launch.command_line import CONF
from netslim.training.allocator import keep_freed_memory

RATIOS = {"vgg_small": 0.5, "vgg19": 0.7, "preresnet164": 0.6, "densenet40": 0.6}  # the paper's largest for CIFAR-10
TRAIN_BATCH, EVAL_BATCH = 64, 256
ROUNDS = 3
TRAINED = {  # channels that the layers of a network trained with the penalty keep at that ratio
    # λ = 1.5e-3, CIFAR-10 (JPEG copy): outputs/published/lab4_small
    "vgg_small": (10, 13, 27, 29, 45, 40, 34, 42),
    # λ = 1e-4, CIFAR-10: published with the reimplementation foolwood/pytorch-slimming
    "vgg19": (49, 64, 128, 128, 256, 254, 234, 198, 114, 41, 24, 11, 14, 13, 19, 104),
}
ROUND_TO = (1, 8)  # kept channels: as many as the ratio says, and a multiple of a vector's eight floats
MULTIPLIES = ("conv", "mm", "mkldnn_linear")  # in the names of ATen operations


def cases(name: str) -> list[tuple[str, int]]:
    """Whose γ, and multiples of which number of channels."""
    return [(scales, n) for scales in ("random", *(["trained"] if name in TRAINED else [])) for n in ROUND_TO]


def measure(name: str, scales: str, round_to: int, device: torch.device, seconds: float) -> dict[str, Any]:
    """Times of the dense network over those of the slim one; half of the channels go where the paper has no ratio.

    Run it in a process of its own: it sets the memory as the command ``netslim`` does.
    """
    keep_freed_memory()
    torch.manual_seed(0)
    dense, small, ratio = pair(name, scales, round_to)
    example = torch.zeros(1, 3, 32, 32)
    costs = [netslim.count(network, example_input=example) for network in (dense, small)]
    activations = [written(network, example) for network in (dense, small)]
    networks = [network.to(device, memory_format=torch.channels_last) for network in (dense, small)]
    images = torch.randn(EVAL_BATCH, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(TRAIN_BATCH, device=device) % 10
    clock = Clock(device)
    row: dict[str, Any] = {"network": name, "ratio": ratio, "scales": scales, "round_to": round_to}
    row["macs"], row["params"] = costs[0].macs / costs[1].macs, costs[0].params / costs[1].params
    row["activations"] = activations[0] / activations[1]
    steps = [step(network, images[:TRAIN_BATCH], labels) for network in networks]
    row["step"] = in_turns(steps, clock, seconds)
    row["split"] = split(steps, device)
    for batch in (1, EVAL_BATCH):
        row[f"latency {batch}"] = in_turns([forward(network, images[:batch]) for network in networks], clock, seconds)
    return row


def pair(name: str, scales: str, round_to: int) -> tuple[nn.Module, nn.Module, float]:
    """A dense network, the slim one, and the share of channels to remove: by γ drawn evenly from 0..1, or as many of
    every layer as in a trained one."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        dense = instantiate(compose("config", [f"net={name}"]).net, num_classes=10)
    layers = netslim.bn_layers(dense)
    for bn in layers.values():
        nn.init.uniform_(bn.weight)
    ratio, example = RATIOS.get(name, 0.5), torch.zeros(1, 3, 32, 32)
    keep: dict[str, Tensor]
    if scales == "random":
        keep = netslim.select_channels(dense, ratio=ratio, example_input=example, round_to=round_to)
    else:
        rounded = (round_to * math.ceil(kept / round_to) for kept in TRAINED[name])
        ranks = (bn.weight.argsort(descending=True).argsort() for bn in layers.values())
        keep = {layer: rank < kept for layer, rank, kept in zip(layers, ranks, rounded, strict=True)}
    return dense, netslim.slim(copy.deepcopy(dense), keep, example_input=example), ratio


def step(network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """A step of fine-tuning."""
    sgd = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def run() -> None:
        network.train()
        F.cross_entropy(network(images), labels).backward()
        sgd.step()
        sgd.zero_grad()

    return run


def forward(network: nn.Module, images: Tensor) -> Callable[[], None]:
    def run() -> None:
        network.eval()
        with torch.inference_mode():
            network(images)

    return run


def in_turns(works: list[Callable[[], None]], clock: Clock, seconds: float) -> dict[str, float]:
    """Median seconds of each, and of the ratio of the first to the second, over rounds in which each has its turn."""
    times: list[list[float]] = []
    for _ in range(ROUNDS):
        times.append([per_call(work, clock, seconds / 4) for work in works])
    dense, small = (statistics.median(column) for column in zip(*times, strict=True))
    return {"dense": dense, "slim": small, "faster": statistics.median(a / b for a, b in times)}


def per_call(work: Callable[[], None], clock: Clock, seconds: float) -> float:
    work()  # warms up
    calls, start = 0, clock.now()
    while (spent := time.perf_counter() - start) < seconds or calls == 0:
        work()
        clock.now()
        calls += 1
    return spent / calls


def split(steps: list[Callable[[], None]], device: torch.device) -> dict[str, float]:
    """Multiply-adds and everything else: dense over slim, and the share of everything else in a step of each."""
    rounds = []
    for _ in range(ROUNDS):
        (large, large_rest), (little, little_rest) = (kinds(run, device) for run in steps)
        shares = large_rest / (large + large_rest), little_rest / (little + little_rest)
        rounds.append((large / little, large_rest / little_rest, *shares))
    return dict(
        zip(("multiply", "rest", "dense", "slim"), map(statistics.median, zip(*rounds, strict=True)), strict=True)
    )


def kinds(run: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Time in operations that multiply and add, and in all others."""
    on_gpu = device.type == "cuda"
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's lines about itself
    run()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as found:
        run()
    times = [0.0, 0.0]
    for event in found.key_averages():
        if event.device_type == DeviceType.CPU:  # a kernel's time is with the operation that started it
            spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            times[not any(word in event.key for word in MULTIPLIES)] += spent
    return times[0], times[1]


class Written(TorchDispatchMode):
    """Counts the elements that operations write."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.elements += sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


def written(network: nn.Module, images: Tensor) -> int:
    """Elements that one forward pass writes: of activations, so of everything that is not a multiply-add."""
    with torch.no_grad(), Written() as mode:
        network.eval()(images)
    return mode.elements
