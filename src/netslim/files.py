"""Files that are there whole or not at all, whatever happens while they are written; and that never run code."""

from __future__ import annotations

import io
import json
import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, force it to disk, then move it there in one step.

    Raises:
        OSError: no space, no permission, ...; the message names ``path``, where the old file still is.
    """
    try:
        _write_bytes(path, data)
    except OSError as error:
        remedy = f"{error.strerror}; mend that and run the command again, it goes on from what is there"
        raise OSError(error.errno, remedy, str(path)) from None


def _write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would hide it from a group that shares the folder
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o022)  # the only way to read it
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        ValueError: the file is not whole; it is named.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); remove it and run the command again") from error


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """``torch.save`` of tensors and plain data in dicts and lists."""
    import torch  # here: a report and `netslim --help` read and write no tensors, and torch costs two seconds

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_bytes(path, buffer.getvalue())


def read_tensors(path: Path) -> dict[str, Any]:
    """What ``write_tensors`` wrote, on the CPU.

    Raises:
        ValueError: the file is cut off, or holds anything but tensors and plain data (no code in it is run).
    """
    import torch  # as in write_tensors

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file, OSError among them
        if isinstance(error, OSError) and error.filename:
            raise  # missing, or not to be opened: it says so
        pickled = isinstance(error, pickle.UnpicklingError)
        reason = "it is damaged, or holds more than tensors" if pickled else str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read ({reason}); remove it and run the command again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not named tensors; it was not written by netslim")
    return content
