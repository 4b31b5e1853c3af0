"""The settings that there are, by name; what to say of one that there is not."""

from __future__ import annotations

import difflib
from typing import Any

from omegaconf import DictConfig

GROUPS = ("net", "data", "optimizer", "scheduler", "slimming", "trainer", "method", "mode", "experiment")
PLAIN = (
    "weights",
    "lambda",
    "ratio",
    "target_macs",
    "target_params",
    "target_latency",
    "latency",
    "seed",
    "epochs",
    "finetune",
    "scale_decay",
    "label_smoothing",
    "channels_last",
    "compile",
    "threads",
    "scan",
    "jobs_per_gpu",
    "checkpoint",
    "quiet",
    "debug",
)
DOORS = ("penalty", "score", "schedule", "task", "logger")
LISTS = ("callbacks", "controls", "stages", "export")
SETTINGS = (*GROUPS, *DOORS, *PLAIN, *LISTS, "outputs", "name")

ELSEWHERE = {  # what belongs to another setting
    "trainer.max_epochs": "epochs=…",
    "trainer.logger": "logger=…",
    "trainer.callbacks": "callbacks=[…]",
    "trainer.default_root_dir": "outputs=…",
    "slimming.ratio": "ratio=…",
    "slimming.target_macs": "target_macs=…",
    "slimming.target_params": "target_params=…",
    "slimming.target_latency": "target_latency=…",
    "slimming.latency": "latency.runtime=… latency.batch=…",
    "data.root": "data=image_folder data.root=FOLDER",
}


def unknown(key: str, config: Any = None) -> str:
    """What to say of a setting that does not exist.

    config: where it was looked for; a name that stands deeper in it is found there.
    """
    if key in ELSEWHERE:
        return f"there is no setting {key!r} here; write {ELSEWHERE[key]}"
    group = key.rpartition(".")[0]
    names = [name for name in _names(config) if name != key and not name.startswith(f"{key}.")]  # + has added it
    deeper = [name for name in names if not group and name.rpartition(".")[2] == key]
    beside = [name for name in names if name.rpartition(".")[0] == group] if group else [*SETTINGS, *names]
    near = deeper or difflib.get_close_matches(key, dict.fromkeys(beside), 1)
    perhaps = f", perhaps {' or '.join(near)}" if near else ""
    return f"there is no setting {key!r}{perhaps}; netslim --cfg job shows all"


def _names(config: Any, above: str = "") -> list[str]:
    """The dotted names of all settings of a configuration, but Hydra's own."""
    if not isinstance(config, DictConfig) or config._is_none() or config._is_missing():
        return []
    found = []
    for key in map(str, config):
        if above or key != "hydra":
            found += [f"{above}{key}", *_names(config._get_node(key), f"{above}{key}.")]
    return found
