"""What people type wrong, and what to type instead: looked at before Hydra reads the command, in words of its own."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from netslim.launch.settings import SETTINGS

PLUGINS = {  # choice -> the extra that installs it, what it installs
    "hydra/launcher=joblib": ("joblib", "hydra_plugins.hydra_joblib_launcher"),
    "hydra/launcher=submitit_slurm": ("slurm", "hydra_plugins.hydra_submitit_launcher"),
    "hydra/launcher=ray": ("ray", "hydra_plugins.hydra_ray_launcher"),
    "hydra/sweeper=optuna": ("optuna", "hydra_plugins.hydra_optuna_sweeper"),
}
MORE = {  # where there is more to choose from than files
    "net": "any network of torchvision: net=torchvision net.name=NAME; of timm: net=timm net.name=NAME; "
    "your own: net=own net._target_=my.module.Net",
    "data": "a folder of images: data=image_folder data.root=FOLDER",
}


def in_order(words: Sequence[str]) -> list[str]:
    """The words of a command with -m in front, wherever it was typed; Hydra takes it nowhere else.

    >>> in_order(["lambda=0,1e-3", "-m", "ratio=0.5"])
    ['-m', 'lambda=0,1e-3', 'ratio=0.5']
    """
    return sorted(words, key=lambda word: word not in ("-m", "--multirun"))


def spelt(word: str) -> str:
    """The word as Hydra takes it: with quotes around a file of weights whose name has = in it, as the names of
    netslim's folders have; and with a + before what not all networks have.

    >>> spelt("weights=outputs/lab/train_seed=0/weights.pt"), spelt("weights=r18.pt"), spelt("net.pretrained=true")
    ('weights="outputs/lab/train_seed=0/weights.pt"', 'weights=r18.pt', '+net.pretrained=true')
    """
    key, _, value = word.partition("=")
    if key == "net.pretrained":
        return f"+{word}"
    return f'{key}="{value}"' if key == "weights" and "=" in value and not set(value) & set("\"',") else word


def look(words: Sequence[str]) -> None:
    """Refuse a command that Hydra would answer with its grammar.

    Raises:
        ValueError: with the command to type instead.
    """
    flags = get_args_parser()._option_string_actions
    words = [word for word in words if word != "--dry-run"]  # netslim's own
    takes_value = False
    for place, word in enumerate(words):
        if takes_value:
            takes_value = False
        elif word.partition("=")[0] in flags:
            takes_value = "=" not in word and flags[word].nargs != 0
        else:
            _look_at(word, words[place + 1] if place + 1 < len(words) else "", words)


def _look_at(word: str, following: str, words: Sequence[str]) -> None:
    key, equals, value = word.partition("=")
    if word.startswith("-"):
        raise ValueError(f"{key}: settings have no dashes; write {key.lstrip('-')}={value or '…'}")
    if word.endswith(","):
        raise ValueError(f"no space after a comma; write {word}{following}")
    if not equals and not word.startswith("~"):
        if word in SETTINGS:
            raise ValueError(f"{word} has no value; write {word}={following if following[:1].isalnum() else '…'}")
        raise ValueError(f"there is no command {word!r}; settings are given as key=value, as in lambda=1e-3 ratio=0.5")
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        quoted = shlex.quote(f'{key}="{value}"')
        raise ValueError(f"cannot read {word!r}; if the value is a text, quote it twice: {quoted}") from None
    if override.is_sweep_override() and not {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(words):
        raise ValueError(f"several values need -m; write netslim -m {shlex.join(words)}")


def no_such_choice(group: str, choice: str, options: Sequence[str]) -> str:
    """What to say of a file of conf/ that does not exist."""
    if (plugin := PLUGINS.get(f"{group}={choice}")) is not None:
        return f"{group}={choice} is not installed: pip install 'netslim[{plugin[0]}]'"
    near = [name for name in options if choice in name] or difflib.get_close_matches(choice, options, 1)
    perhaps = f", perhaps {' or '.join(near)}" if near else ""
    more = f"; {MORE[group]}" if group in MORE else ""
    return f"{group}={choice} does not exist{perhaps}; there are {', '.join(options)}{more}"
