"""What must be in the JSON files under ``outputs/``, so that one which was edited, or which something else wrote, is
answered in one line that names it, and not by an error further on."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any

from netslim.files import read_json

NUMBER = (int, float)
RUN = {"started": str, "seconds": NUMBER, "command": str, "versions": dict, "hardware": str}
TEST = {"correct": NUMBER, "total": NUMBER}
COST = {"params": NUMBER, "macs": NUMBER, "test": TEST}
EPOCHS = [{"epoch": NUMBER, "train_accuracy": NUMBER}]
LAYERS = [{"name": str, "channels": NUMBER, "kept": NUMBER}]

# A dict: at least these keys, each with a value like that; {"*": x}: any keys, values like x; [x]: one x or more.
SHAPES: dict[str, Any] = {
    "record": dict,
    "settings": dict,
    "scales": {"*": [NUMBER]},
    "sweep": {"command": str, "jobs": list},
    "job": {"lambda": NUMBER, "ratio": NUMBER, "seed": NUMBER, "train": str, "slim": str, "finetune": (str, NoneType)},
    # what a report needs
    "train": {"name": str, "network": str, "data": str, "budget": NUMBER, "epochs": EPOCHS, "test": TEST, "run": RUN}
    | {"scales": dict},
    "slim": {"name": str, "threshold": NUMBER, "removed": NUMBER, "prunable": NUMBER, "layers": LAYERS, "run": RUN}
    | {"dense": COST, "slim": COST, "recalibrated": {"test": TEST}},
    "finetune": {"name": str, "epochs": EPOCHS, "test": TEST, "run": RUN},
}


def read(path: Path, kind: str) -> Any:
    """Parse a file of that kind: a key of SHAPES.

    Raises:
        ValueError: it is not valid JSON, or lacks something; the message names the file and what is wrong with it.
    """
    value = read_json(path)
    fault = wrong(value, SHAPES[kind], "it")
    if fault:
        where = path if kind == "sweep" else f"the folder {path.parent}"
        raise ValueError(f"{path} is not as netslim writes it ({fault}); remove {where} and run the command again")
    return value


def wrong(value: Any, shape: Any, name: str) -> str:
    """What a value of that name lacks of a shape, in words; "" if nothing.

    >>> wrong({"correct": 9}, TEST, "its test")
    "its test has no 'total'"
    """
    kind = type(shape) if isinstance(shape, (dict, list)) else shape
    if not isinstance(value, kind) or isinstance(value, bool):
        return f"{name} is {value!r:.40}"
    parts: list[tuple[Any, Any, Any]] = []
    if isinstance(shape, list):
        if not value:
            return f"{name} is empty"
        parts = [(i, item, shape[0]) for i, item in enumerate(value)]
    elif isinstance(shape, dict) and "*" in shape:
        parts = [(key, value[key], shape["*"]) for key in value]
    elif isinstance(shape, dict):
        lacking = [key for key in shape if key not in value]
        if lacking:
            return f"{name} has no {lacking[0]!r}"
        parts = [(key, value[key], part) for key, part in shape.items()]
    return next((fault for key, item, part in parts if (fault := wrong(item, part, f"{name}, {key}"))), "")
