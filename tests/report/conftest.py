"""Synthetic sweeps: records with made-up but consistent numbers, in the folder format of `netslim.experiment.paths`."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netslim import report
from netslim.experiment.records import FinishedJob

RUN = {
    "started": "2026-01-02T03:04:05+00:00",
    "seconds": 754.2,
    "command": "netslim experiment=synthetic",
    "versions": {
        "python": "3.11.0",
        "netslim": "0.1.0",
        "torch": "2.14.1",
        "torchvision": "0.29.1",
        "lightning": "2.6.6",
    },
    "hardware": "2 CPU cores (synthetic), 1 threads",
}
WIDTHS = [64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512]
MAPS = [32, 32, 16, 16, 8, 8, 8, 8, 4, 4, 4, 4, 2, 2, 2, 2]


def cost(widths: Sequence[int]) -> dict[str, int]:
    """Parameters and MACs of a chain of 3x3 convolutions and a linear layer."""
    pairs = list(zip([3, *widths], widths, MAPS, strict=False))
    params = sum(9 * a * b + 2 * b for a, b, _ in pairs) + 10 * widths[-1] + 10
    return {"params": params, "macs": sum(9 * a * b * size * size for a, b, size in pairs) + 10 * widths[-1]}


def gammas(strength: float, rng: random.Random) -> dict[str, list[float]]:
    """Scales that gather at zero with a larger λ, more so in deeper layers."""
    near = 0.0 if strength == 0 else 0.1 if strength < 5e-5 else 0.62
    layers = {}
    for depth, width in enumerate(WIDTHS):
        share = near * (0.5 + depth / len(WIDTHS))
        values = [
            rng.uniform(0, 0.006) if rng.random() < share else abs(rng.gauss(0.32, 0.12)) + 1e-3 for _ in range(width)
        ]
        layers[f"features.{3 * depth + 1}"] = [value * rng.choice((1, 1, 1, -1)) for value in values]
    return layers


def history(
    epochs: int, best: float, rng: random.Random, *, validation: bool, start: float = 0.35
) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, epochs + 1):
        lr = 0.1 * 0.1 ** ((2 * epoch > epochs) + (4 * epoch > 3 * epochs))
        noise = 0.02 * math.sqrt(lr / 0.1) * rng.gauss(0, 1)
        level = start + (best - 0.04 * (lr > 0.05) - start) * (1 - math.exp(-12 * epoch / epochs)) + noise
        row = {
            "epoch": epoch,
            "lr": lr,
            "train_loss": 1.2 - level,
            "train_accuracy": min(level + 0.03, 1.0),
            "dead_share": 0.1,
        }
        rows.append(row | ({"val_loss": 1.3 - level, "val_accuracy": level} if validation else {}))
    return rows


def tested(accuracy: float) -> dict[str, Any]:
    return {"correct": round(accuracy * 10000), "total": 10000, "loss": round(1.7 * (1 - accuracy), 4)}


def slimming(scales: dict[str, list[float]], ratio: float) -> tuple[float, list[dict[str, Any]]]:
    """Largest |γ| removed and kept channels per layer: global threshold, at least one channel per layer."""
    order = sorted((abs(v), name) for name, values in scales.items() for v in values)
    kept = {name: len(values) for name, values in scales.items()}
    left, threshold = math.floor(ratio * len(order)), 0.0
    for value, name in order:
        if left and kept[name] > 1:
            kept[name], left, threshold = kept[name] - 1, left - 1, value
    return threshold, [{"name": name, "channels": len(values), "kept": kept[name]} for name, values in scales.items()]


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def make_sweep(
    folder: Path,
    *,
    lambdas: Sequence[float] = (0.0, 1e-5, 1e-4),
    ratios: Sequence[float] = (0.5, 0.9),
    seeds: Sequence[int] = (0,),
    epochs: int = 40,
    validation: bool = True,
    finetune: bool = True,
    network: str = "vgg19",
    data: str = "SYNTHETIC numbers, no real run",
) -> Path:
    """Write a finished sweep into ``folder``, as `netslim -m` would, and return it."""
    asked = [
        [f"lambda={s:g}", f"ratio={r:g}", f"seed={seed}"] for s, r, seed in itertools.product(lambdas, ratios, seeds)
    ]
    write(folder / "sweep.json", {"command": "netslim -m experiment=synthetic", "jobs": asked})
    for strength, seed in itertools.product(lambdas, seeds):
        rng = random.Random(f"{strength} {seed}")
        best, scales = 0.936 - 60 * strength + rng.gauss(0, 0.002), gammas(strength, rng)
        train = {
            "stage": "train",
            "name": f"train_lambda={strength:g}_seed={seed}_0a1b2c3d",
            "lambda": strength,
            "seed": seed,
            "network": network,
            "data": data,
            "budget": 65987.0 * strength,
            "epochs": history(epochs, best, rng, validation=validation),
            "test": tested(best),
            "run": RUN,
        }
        write(folder / train["name"] / "scales.json", scales)
        write(folder / train["name"] / "record.json", train)
        for ratio in ratios:
            make_job(folder, train, scales, ratio, rng, finetune=finetune, validation=validation)
    return folder


def make_job(
    folder: Path,
    train: dict[str, Any],
    scales: dict[str, list[float]],
    ratio: float,
    rng: random.Random,
    *,
    finetune: bool,
    validation: bool,
) -> None:
    strength, seed, dense = train["lambda"], train["seed"], train["test"]["correct"] / 10000
    labels = {"lambda": strength, "ratio": ratio, "seed": seed}
    ending = f"lambda={strength:g}_ratio={ratio:g}_seed={seed}"
    threshold, layers = slimming(scales, ratio)
    loss = min(1.0, threshold / 0.25) ** 0.7
    after, again = dense - loss * (dense - 0.1), dense - (0.1 + 0.6 * ratio) * loss * (dense - 0.1)
    slim = {
        "stage": "slim",
        "name": f"slim_{ending}_4e5f6a7b",
        **labels,
        "train": train["name"],
        "threshold": threshold,
        "removed": sum(layer["channels"] - layer["kept"] for layer in layers),
        "prunable": sum(WIDTHS),
        "dense": {**cost(WIDTHS), "test": train["test"]},
        "slim": {**cost([layer["kept"] for layer in layers]), "test": tested(after)},
        "recalibrated": {"test": tested(again)},
        "layers": layers,
        "uncounted": {},
        "run": RUN | {"seconds": 9.7},
    }
    write(folder / slim["name"] / "record.json", slim)
    last = dense - 0.05 * ratio**3 * loss + rng.gauss(0, 0.001)
    tuned = {
        "stage": "finetune",
        "name": f"finetune_{ending}_8c9d0e1f",
        **labels,
        "slim": slim["name"],
        "epochs": history(len(train["epochs"]), last, rng, validation=validation, start=again),
        "test": tested(last),
        "run": RUN,
    }
    if finetune:
        write(folder / tuned["name"] / "record.json", tuned)
    job = {**labels, "train": train["name"], "slim": slim["name"], "finetune": tuned["name"] if finetune else None}
    command = f"netslim experiment=synthetic lambda={strength:g} ratio={ratio:g} seed={seed}"
    write(folder / f"job_{ending}" / "record.json", {**job, "command": command})


@pytest.fixture(name="make_sweep")
def fixture_make_sweep(tmp_path: Path) -> Callable[..., Path]:
    return lambda name="sweep", **settings: make_sweep(tmp_path / name, **settings)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three λ, two ratios, one seed, with its report built."""
    folder = make_sweep(tmp_path_factory.mktemp("outputs") / "one")
    report.build(folder)
    return folder


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two λ, one ratio, three seeds, of which one job is missing, with its report built."""
    folder = make_sweep(
        tmp_path_factory.mktemp("outputs") / "seeds", lambdas=(0.0, 1e-4), ratios=(0.5,), seeds=(0, 1, 2)
    )
    shutil.rmtree(folder / "job_lambda=0.0001_ratio=0.5_seed=2")
    report.build(folder)
    return folder


@pytest.fixture
def job() -> FinishedJob:
    """One job with round numbers, as `paths.load_jobs` gives it."""
    run = {**RUN, "seconds": 3.0}
    train = {
        "name": "train_x", "network": "vgg", "data": "toy", "budget": 0.25, "run": run,
        "epochs": [
            {"epoch": 1, "lr": 0.1, "train_accuracy": 0.25, "val_accuracy": 0.125},
            {"epoch": 2, "lr": 0.01, "train_accuracy": 0.5, "val_accuracy": 0.375},
        ],
        "test": {"correct": 6, "total": 8, "loss": 0.5}, "scales": {"bn1": [0.5, -0.0005], "bn2": [0.005, -0.25]},
    }  # fmt: skip
    slim = {
        "name": "slim_x", "threshold": 0.005, "removed": 2, "prunable": 4, "run": run,
        "dense": {"params": 100, "macs": 1000, "test": {"correct": 6, "total": 8, "loss": 0.5}},
        "slim": {"params": 25, "macs": 500, "test": {"correct": 1, "total": 8, "loss": 2.0}},
        "recalibrated": {"test": {"correct": 3, "total": 8, "loss": 1.0}},
        "layers": [{"name": "bn1", "channels": 2, "kept": 1}, {"name": "bn2", "channels": 2, "kept": 1}],
        "uncounted": {},
    }  # fmt: skip
    finetune = {
        "name": "finetune_x", "epochs": [{"epoch": 1, "train_accuracy": 0.75}],
        "test": {"correct": 5, "total": 8, "loss": 0.75}, "run": run,
    }  # fmt: skip
    labels = {"lambda": 1e-4, "ratio": 0.5, "seed": 0, "command": "netslim experiment=x lambda=0.0001 ratio=0.5"}
    return msgspec.convert({**labels, "train": train, "slim": slim, "finetune": finetune}, FinishedJob)
