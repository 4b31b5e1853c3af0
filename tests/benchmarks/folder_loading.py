"""How fast a folder of JPEGs is read: `python tests/benchmarks/folder_loading.py`.

Images a second and core, by the processor time of one process with one thread. The ways of reading take turns in blocks
of one epoch each; a ratio is the median over the turns, so that it holds on a machine that does other work, too.

    decode alone   what nobody can do without
    netslim        an epoch as a worker of FolderData reads it: decoded, cropped, resized, mirrored, put in batches
    + normalised   the same and what the device does with it, here on the processor
    one by one     Pillow and float32 for each image, the way of most tutorials
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from netslim.data import FolderData, decode, image_folder
from netslim.training.allocator import keep_freed_memory

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZE = (500, 375)  # the most frequent one of ImageNet
DECODE = "decode alone"


def photos(root: Path, count: int) -> None:
    """Smooth shapes with the noise of a camera: some 90 kB each, as in ImageNet."""
    random = np.random.default_rng(0)
    for part, number in (("train", count), ("test", 2)):
        for i in range(number):
            small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            smooth = np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC)).astype(int)
            noisy = (smooth + random.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)
            path = root / part / f"class{i % 2}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).save(path, quality=92)


def ways(root: Path) -> dict[str, Callable[[], object]]:
    data = image_folder(str(root), mean=MEAN, std=STD, num_workers=0, memory_limit=0)
    assert isinstance(data, FolderData)
    paths = [str(path) for path in sorted((root / "train").glob("*/*"))]
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), *finish])
    plain = DataLoader(ImageFolder(str(root / "train"), transform), 64, shuffle=True)
    return {
        DECODE: lambda: [decode.decode(path) for path in paths],
        "netslim": lambda: [None for _ in data.train_dataloader()],
        "+ normalised": lambda: [None for batch in data.train_dataloader() if data.on_after_batch_transfer(batch, 0)],
        "one by one": lambda: [None for _ in plain],
    }


def measure(root: Path, count: int, turns: int) -> dict[str, list[float]]:
    """Images a second, of each way in each turn."""
    found: dict[str, list[float]] = {name: [] for name in ways(root)}
    for turn in range(turns + 1):
        for name, read in ways(root).items():
            start = time.process_time()
            read()
            if turn:  # the first one warms up
                found[name].append(count / (time.process_time() - start))
    return found


def table(found: dict[str, list[float]]) -> str:
    lines = ["| | images/s and core | of decode alone |", "| --- | ---: | ---: |"]
    for name, rates in found.items():
        share = statistics.median(rate / alone for rate, alone in zip(rates, found[DECODE], strict=True))
        lines.append(f"| {name} | {statistics.median(rates):.0f} | {share:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast a folder of JPEGs is read")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a job does
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder), options.images)
        print(table(measure(Path(folder), options.images, options.turns)))


if __name__ == "__main__":
    main()
