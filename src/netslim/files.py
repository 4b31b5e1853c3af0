"""Files that are there whole or not at all, whatever happens while they are written; and that never run code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` beside ``path``, force it to disk, then move it there in one step.

    Raises:
        OSError: no space, no permission, ...; the message names ``path``, where the old file still is.
    """
    try:
        _write_bytes(path, data)
    except OSError as error:
        remedy = f"{error.strerror}; fix that and run the command again, it goes on from what is there"
        raise OSError(error.errno, remedy, str(path)) from None


def _write_bytes(path: Path, data: bytes | memoryview) -> None:
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
    """``torch.save`` of tensors and plain data in dicts and lists, with a digest that ``torch.load`` passes over."""
    import torch  # here: a report and `netslim --help` read and write no tensors, and torch costs two seconds

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    _seal(buffer)
    write_bytes(path, buffer.getbuffer())


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What ``write_tensors`` wrote, on the CPU. Older files and plain ``torch.save`` are checked by their zip's CRC32.

    Raises:
        DamagedFile: the file is cut off or has changed, or holds anything but tensors and plain data (no code in it is
            run).
        ValueError: it holds something else than named tensors.
    """
    import torch  # as in write_tensors

    path = Path(path)
    try:
        _check_seal(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file, OSError among them
        if isinstance(error, OSError) and error.filename:
            raise  # missing, or not to be opened: it says so
        pickled = isinstance(error, (pickle.UnpicklingError, zipfile.BadZipFile))
        reason = "it is damaged, or holds more than tensors" if pickled else str(error).partition("\n")[0]
        raise DamagedFile(path, reason) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not named tensors; it was not written by netslim")
    return content


class DamagedFile(ValueError):
    """A file that is not what was written, with the reason; to make it anew helps."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read ({reason}); remove it and run the command again")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


# torch.save makes a zip archive, which may end in a comment of the length that its last two bytes say. The comment is
# the digest of everything before it; readers of zip archives, torch.load among them, pass over it.
SEAL = b"netslim sha256 "
SEAL_SIZE = len(SEAL) + 64


def _seal(archive: io.BytesIO) -> None:
    archive.seek(-2, io.SEEK_END)
    archive.write(SEAL_SIZE.to_bytes(2, "little"))
    digest = hashlib.sha256(archive.getbuffer()).hexdigest()
    archive.write(SEAL + digest.encode())


def _check_seal(path: Path) -> None:
    """Raise ValueError, BadZipFile or zlib's error where a file is not what was written."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - SEAL_SIZE))
        seal = file.read()
        if not seal.startswith(SEAL):
            _check_crc(path)
            return
        file.seek(0)
        found, left = hashlib.sha256(), size - SEAL_SIZE
        while left and (block := file.read(min(left, 1 << 22))):
            found.update(block)
            left -= len(block)
    if seal[len(SEAL) :] != found.hexdigest().encode():
        raise ValueError("its bytes are not those that were written")


def _check_crc(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return  # torch.load says what it is
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the bytes of {damaged} are not those that were written")
