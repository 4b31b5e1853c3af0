"""Decoded images in a file, so that the next process reads one tensor instead of thousands of JPEGs."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import PIL
import torch

from netslim.data.sources import Images


def cache_file(folder: str, root: str, paths: Iterable[str]) -> Path:
    """Where the images at ``paths`` under ``root`` are kept: another name once one is added, removed or changed.

    A change is seen by size or modification time. Decoders differ in the last bit, so Pillow's version is part of it.
    """
    digest = hashlib.sha256(PIL.__version__.encode())
    for path in paths:
        status = os.stat(path)
        digest.update(f"{os.path.relpath(path, root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return Path(folder).expanduser() / f"{Path(root).absolute().name}-{digest.hexdigest()[:16]}.pt"


def cached(file: Path, make: Callable[[], Images]) -> Images:
    """The images in ``file``, or those of ``make``, which are then written there.

    Two processes may write at the same time: each writes a file of its own and renames it when it is whole.
    """
    if file.exists():
        return Images(**torch.load(file, weights_only=True))
    images = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=file.parent, prefix=f"{file.stem}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as stream:
            torch.save(asdict(images), stream)
        os.replace(partial, file)
    except BaseException:
        os.unlink(partial)
        raise
    return images
