"""JPEG, PNG and WebP: sizes are those of real files, and each image comes back in its own place."""

import io

import pytest
import torch
from PIL import Image

from vae_utils.data import load
from vae_utils.pictures import one_file_each, one_sheet


@pytest.fixture(scope="module")
def images():
    return load("digits").test_images[:7]


@pytest.mark.parametrize("way", [one_file_each, one_sheet])
@pytest.mark.parametrize("format", ["png", "webp"])
def test_lossless_formats_give_back_every_pixel(way, format, images):
    grey = (images * 255).round() / 255
    coded = way(grey, format, **({"lossless": True} if format == "webp" else {}))
    torch.testing.assert_close(coded.images, grey)
    assert coded.bytes_each == coded.size / 7


@pytest.mark.parametrize("way", [one_file_each, one_sheet])
def test_jpeg_pays_quality_with_bytes(way, images):
    coarse, fine = (way(images, "jpeg", quality=quality) for quality in (5, 95))
    errors = [(coded.images - images).square().mean() for coded in (coarse, fine)]
    assert coarse.size < fine.size and errors[0] > 4 * errors[1]
    assert coarse.images.shape == images.shape


def test_the_size_is_that_of_the_file(images):
    buffer = io.BytesIO()
    Image.fromarray((images[0, 0] * 255).round().byte().numpy()).save(buffer, "png")
    assert one_file_each(images[:1], "png").size == len(buffer.getvalue())


def test_one_bit_a_pixel_is_exact_and_smaller(images):
    bits = (images > 0.5).float()
    one, eight = (one_file_each(bits, "png", one_bit=one_bit) for one_bit in (True, False))
    assert torch.equal(one.images, bits)
    assert one.size < eight.size


def test_a_sheet_saves_headers(images):
    assert one_sheet(images, "png").size < one_file_each(images, "png").size


@pytest.mark.parametrize(
    "broken, message",
    [
        (lambda x: x[:0], "at least one image"),
        (lambda x: x[:, 0], "shape"),
        (lambda x: 255 * x, "divide bytes by 255"),
        (lambda x: x * torch.nan, "NaN"),
    ],
)
def test_bad_images_are_refused(broken, message, images):
    with pytest.raises(ValueError, match=message):
        one_sheet(broken(images), "png")


def test_an_unknown_format_is_refused(images):
    with pytest.raises(ValueError, match="choose one of jpeg, png, webp"):
        one_file_each(images, "gif")
