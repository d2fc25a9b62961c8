"""JPEG, PNG and WebP: sizes are those of real files, and each image comes back in its own place."""

import io

import pytest
import torch
from PIL import Image

from vae_utils.baselines import one_file_each, one_sheet
from vae_utils.data import load


@pytest.fixture(scope="module")
def images():
    return load("digits").test_images[:7]


@pytest.mark.parametrize("way", [one_file_each, one_sheet])
@pytest.mark.parametrize("options", [{"format": "png"}, {"format": "webp", "lossless": True}])
def test_lossless_formats_give_back_every_pixel(way, options, images):
    grey = (images * 255).round() / 255
    coded = way(grey, **options)
    torch.testing.assert_close(coded.images, grey)
    assert coded.bytes_each == coded.size / 7


@pytest.mark.parametrize("way", [one_file_each, one_sheet])
def test_jpeg_pays_quality_with_bytes(way, images):
    coarse, fine = (way(images, "jpeg", quality=quality) for quality in (5, 95))
    errors = [(coded.images - images).square().mean() for coded in (coarse, fine)]
    assert coarse.size < fine.size and errors[0] > 4 * errors[1]


def test_the_size_is_that_of_the_file_and_one_bit_is_exact(images):
    buffer = io.BytesIO()
    Image.fromarray((images[0, 0] * 255).round().byte().numpy()).save(buffer, "png")
    assert one_file_each(images[:1], "png").size == len(buffer.getvalue())
    bits = (images > 0.5).float()
    one, eight = (one_file_each(bits, "png", one_bit=one_bit) for one_bit in (True, False))
    assert torch.equal(one.images, bits) and one.size < eight.size
    with pytest.raises(ValueError, match="255"):
        one_sheet(255 * images, "png")
