"""One file to one uint8 image: JPEG by torchvision, everything else by Pillow.

Both decode JPEG with libjpeg-turbo, to the same pixels; torchvision spares a copy, a third of the time. It is going to
give its decoders up (deprecated since 0.29); then Pillow decodes everything.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:
    decode_jpeg = None

JPEG = b"\xff\xd8\xff"  # how each begins


class UnreadableImage(ValueError):
    """A file that is no whole image. Of the traceback that a worker process puts around it, the line itself is kept."""

    def __init__(self, said: str) -> None:
        super().__init__(said.strip().splitlines()[-1].removeprefix(f"{__name__}.{type(self).__name__}: "))


def decode(path: str) -> Tensor:
    """The image in a file as uint8 (3, H, W): grey becomes RGB, transparency is dropped, EXIF turns nothing.

    Raises:
        UnreadableImage: it is none, or damaged.
        OSError: the file cannot be read.
    """
    data = bytearray(Path(path).read_bytes())
    try:
        if decode_jpeg and data.startswith(JPEG):
            return decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode=ImageReadMode.RGB)
        with Image.open(BytesIO(data)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (RuntimeError, UnidentifiedImageError, OSError) as error:
        raise unreadable(path, error) from error


def pixels(path: str) -> np.ndarray:
    """The image in a file as uint8 (H, W, 3), decoded by Pillow whatever its format.

    Raises:
        UnreadableImage: it is none, or damaged.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise unreadable(path, error) from error


def size(path: str) -> tuple[int, int]:
    """Width and height, from the header alone.

    Raises:
        UnreadableImage: there is none.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: Exception) -> UnreadableImage:
    reason = re.sub(r"^.*\.cpp:\d+, ", "", " ".join(str(error).split()))  # torchvision says where in its code it was
    return UnreadableImage(f"{path} cannot be read as an image ({reason}); remove or replace it")
