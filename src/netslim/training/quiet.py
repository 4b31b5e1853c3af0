"""Loggers that write nothing and callbacks that do nothing, for a step that only asks whether and which there are.

Each stands for a real one: it is of the same class for ``isinstance``, and has its names, folders and numbers.
"""

from __future__ import annotations

from typing import Any

from lightning import Callback
from lightning.pytorch.loggers import Logger


class Nothing:
    """Takes every call, item and ``with`` statement, and does nothing: the experiment of a quiet logger."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        pass


class _StandIn:
    def __init__(self, real: Any) -> None:
        self._real = real

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._real)


class _QuietLogger(_StandIn):
    def __getattr__(self, name: str) -> Any:
        value = Nothing() if name == "experiment" else getattr(self._real, name)
        return Nothing() if callable(value) else value


class _QuietCallback(_StandIn):
    def __getattr__(self, name: str) -> Any:
        return None if name.startswith("on_") else getattr(self._real, name)  # Lightning calls what is callable


def quiet_logger(logger: Logger) -> Any:
    """
    >>> from lightning.pytorch.loggers import CSVLogger
    >>> quiet = quiet_logger(CSVLogger("logs", "name"))
    >>> isinstance(quiet, CSVLogger), quiet.name, quiet.log_metrics({"a": 1}) is None
    (True, 'name', False)
    """
    return _QuietLogger(logger)


def quiet_callback(callback: Callback) -> Any:
    """
    >>> from lightning.pytorch.callbacks import EarlyStopping
    >>> quiet = quiet_callback(EarlyStopping("loss"))
    >>> isinstance(quiet, EarlyStopping), quiet.monitor, quiet.on_validation_end
    (True, 'loss', None)
    """
    return _QuietCallback(callback)
