"""Objects from settings that somebody else may have written: the constructors of known networks and data sets, and
what the user names, are called; nothing else is.

Hydra's ``instantiate`` calls whatever a ``_target_`` names, in lists and arguments too, and resolves ``${...}``. Here a
string is a string, and a name counts for the object that it leads to: ``torchvision.models.resnet.torch.load`` is
refused although it begins with torchvision.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

# timm reads these from files or from anywhere in the network
TIMM_READS = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")


def construct(settings: Mapping[str, Any], trust: Collection[str] = (), **given: Any) -> Any:
    """What ``_target_`` and the arguments beside it describe, as Hydra would build it, with ``given`` besides.

    ``_args_`` and ``_partial_`` mean what they mean for Hydra; dictionaries with a ``_target_`` are built wherever they
    stand. All names are checked before the first is called.

    Args:
        trust: dotted names that may be called although netslim does not know them.

    Raises:
        ValueError: there is no ``_target_``, or one that may not be called; the message says how to trust it.

    >>> construct({"_target_": "netslim.nets.VGG", "layers": [4, "M", 4]}, num_classes=3).classifier.out_features
    3
    >>> construct({"_target_": "os.system", "command": "true"})
    Traceback (most recent call last):
    ValueError: os.system is no network or data set of netslim, torchvision or timm; to call it, add --trust os.system
    """
    if not isinstance(settings, Mapping) or "_target_" not in settings:
        raise ValueError(f"{settings!r:.60} names no class or function (_target_)")
    for _, name in targets(settings):
        _constructor(name, trust)
    return _built({**settings, **given}, trust)


def targets(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, name) of every ``_target_`` in plain data.

    >>> list(targets({"net": {"_target_": "a.B", "parts": [{"_target_": "c"}]}}))
    [('net._target_', 'a.B'), ('net.parts[0]._target_', 'c')]
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            path = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield path, str(inner)
            yield from targets(inner, path)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from targets(inner, f"{key}[{number}]")


def _built(value: Any, trust: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_built(inner, trust) for inner in value]
    if not isinstance(value, Mapping):
        return value
    keywords = {key: _built(inner, trust) for key, inner in value.items() if not (key[:1] == key[-1:] == "_")}
    if "_target_" not in value:
        return keywords
    name, positional = str(value["_target_"]), _built(list(value.get("_args_", ())), trust)
    _check_timm(name, positional, keywords)
    build = _constructor(name, trust)
    return partial(build, *positional, **keywords) if value.get("_partial_") else build(*positional, **keywords)


def _constructor(name: str, trust: Collection[str]) -> Any:
    library = name.partition(".")[0]
    known = {"netslim": _is_netslims, "torchvision": _is_torchvisions, "timm": _is_timms}
    if name in trust:
        return _located(name)
    if library in known and known[library](found := _located(name)):
        return found
    raise ValueError(
        f"{name} is no network or data set of netslim, torchvision or timm; to call it, add --trust {name}"
    )


def _located(name: str) -> Any:
    """The object of a dotted name: a module as far as there are modules, then attributes."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:length]))
            for part in parts[length:]:
                found = getattr(found, part)
        except (ImportError, AttributeError):
            continue
        return found
    raise ValueError(f"{name} cannot be imported; is what it belongs to installed, and on PYTHONPATH?")


def _is_netslims(found: Any) -> bool:
    from netslim import data, nets

    return any(found is getattr(module, name) for module in (nets, data) for name in module.__all__)


def _is_torchvisions(found: Any) -> bool:
    from torchvision import models

    builders = [models.get_model, *(models.get_model_builder(name) for name in models.list_models())]
    return found in builders or _is_network_of("torchvision.models", found)


def _is_timms(found: Any) -> bool:
    import timm

    named = getattr(found, "__name__", "")
    return found is timm.create_model or (
        (timm.is_model(named) and timm.model_entrypoint(named) is found) or _is_network_of("timm", found)
    )


def _is_network_of(library: str, found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, nn.Module) and f"{found.__module__}.".startswith(f"{library}.")


def _check_timm(name: str, positional: list[Any], keywords: Mapping[str, Any]) -> None:
    """timm's own names and weights only: no file, no place in the network that the settings name."""
    if name.partition(".")[0] != "timm":
        return
    for key in TIMM_READS:
        if keywords.get(key) is not None:
            raise ValueError(f"{name} with {key}={keywords[key]} reads a file that somebody else chose; remove it")
    model = str(keywords.get("model_name", positional[0] if positional else ""))
    if len(positional) > 1 or ":" in model or "/" in model:
        raise ValueError(f"{name} with {positional or model} is no name of a network of timm")
