"""Decoded images in a file, so that the next process reads one tensor instead of thousands of JPEGs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import PIL

from netslim import files
from netslim.data.scan import Stamp
from netslim.data.sources import Images


def cache_file(folder: str, root: str, images: Iterable[tuple[str, Stamp]]) -> Path:
    """Where the ``images`` under ``root`` are kept: another name once one is added, removed or changed.

    A change is seen by size or modification time. Decoders differ in the last bit, so Pillow's version is part of it.
    """
    digest = hashlib.sha256(PIL.__version__.encode())
    for name, (size, changed) in images:
        digest.update(f"{name}\0{size}\0{changed}\n".encode())
    return Path(folder).expanduser() / f"{Path(root).absolute().name}-{digest.hexdigest()[:16]}.pt"


def cached(file: Path, make: Callable[[], Images]) -> Images:
    """The images in ``file``, or those of ``make``, which are then written there.

    Two processes may write at the same time: each writes a file of its own and renames it when it is whole.

    Raises:
        ValueError: the file is not what was written.
    """
    if file.exists():
        return Images(**files.read_tensors(file))
    images = make()
    files.write_tensors(file, asdict(images))
    return images
