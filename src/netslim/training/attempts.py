"""Steps of a module that are tried before a training, so that it does not end in the middle."""

from __future__ import annotations

from collections.abc import Callable

from lightning import LightningModule

Attempt = Callable[[LightningModule], None]


def reason(attempt: Attempt, module: LightningModule) -> str:
    """Why it fails; empty if it does not."""
    try:
        attempt(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def reason_of_small(attempt: Attempt, small: LightningModule, dense: LightningModule) -> str:
    """Why it fails on the module with the smaller network; empty where it does on the dense one as well."""
    found = reason(attempt, small)
    return "" if found and reason(attempt, dense) else found
