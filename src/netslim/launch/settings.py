"""The settings that there are, by name; what to say of one that there is not."""

from __future__ import annotations

import difflib

GROUPS = ("net", "data", "optimizer", "scheduler", "slimming", "trainer", "experiment")
PLAIN = ("lambda", "ratio", "seed", "epochs", "finetune", "label_smoothing", "channels_last", "compile", "threads")
DOORS = ("penalty", "score", "schedule", "task", "logger")
LISTS = ("callbacks", "controls", "stages")
SETTINGS = (*GROUPS, *DOORS, *PLAIN, *LISTS, "outputs", "name")


def unknown(key: str) -> str:
    """What to say of a setting that does not exist."""
    close = difflib.get_close_matches(key, SETTINGS, 1)
    return f"there is no setting {key!r}{f', perhaps {close[0]}' if close else ''}; netslim --cfg job shows all"
