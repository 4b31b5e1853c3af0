"""One file to one image. Oracle: Pillow's decoding."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from netslim.data.decode import UnreadableImage, decode, size


@pytest.fixture
def picture():
    small = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((40, 30), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_has_the_pixels_that_pillow_gives(picture, mode, tmp_path):
    path = tmp_path / "picture.JPG"
    picture.convert(mode).save(path, "JPEG", quality=90)
    with Image.open(path) as image:
        expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    found = decode(str(path))
    assert (found.dtype, found.shape, size(str(path))) == (torch.uint8, (3, 30, 40), (40, 30))
    assert (found.int() - expected.int()).abs().max() <= 1  # both are libjpeg-turbo, of versions of their own


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_other_formats_are_as_pillow_has_them(picture, mode, tmp_path):
    picture.convert(mode).save(tmp_path / "picture.png")
    expected = np.asarray(picture.convert(mode).convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(str(tmp_path / "picture.png")).numpy(), expected)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_what_is_no_whole_image_is_named_in_one_line(picture, kind, workers, tmp_path):
    path = tmp_path / f"picture.{kind}"
    picture.save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableImage) as caught:
        list(DataLoader(Decoded(path), num_workers=workers))
    said = str(caught.value)
    assert said.startswith(f"{path} cannot be read as an image (")
    assert said.endswith("); remove or replace it")
    assert "\n" not in said


class Decoded(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return decode(str(self.path))
