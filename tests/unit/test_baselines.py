"""Image formats: sizes are those of real files, and each image comes back in its own place. Filters
remove noise and nothing else. The U-Net learns to denoise."""

import io
from functools import partial

import pytest
import torch
from PIL import Image

from vae_utils.baselines import UNet, lmmse, one_sheet, road_median, total_variation_l1
from vae_utils.corruption import DropPixels, ReplacePixels
from vae_utils.data import load
from vae_utils.training import fit


@pytest.fixture(scope="module")
def images():
    return load("digits").test_images[:7]


@pytest.mark.parametrize("options", [{"format": "png"}, {"format": "webp", "lossless": True}])
def test_lossless_formats_give_back_every_pixel(options, images):
    grey = (images * 255).round() / 255
    coded = one_sheet(grey, **options)
    torch.testing.assert_close(coded.images, grey)
    assert coded.bytes_each == coded.size / 7


def test_jpeg_pays_quality_with_bytes(images):
    coarse, fine = (one_sheet(images, "jpeg", quality=quality) for quality in (5, 95))
    errors = [(coded.images - images).square().mean() for coded in (coarse, fine)]
    assert coarse.size < fine.size and errors[0] > 4 * errors[1]


def test_the_size_is_that_of_the_file_and_one_bit_is_exact(images):
    buffer = io.BytesIO()
    Image.fromarray((images[0, 0] * 255).round().byte().numpy()).save(buffer, "png")
    assert one_sheet(images[:1], "png").size == len(buffer.getvalue())
    bits = (images > 0.5).float()
    one, eight = (one_sheet(bits, "png", one_bit=one_bit) for one_bit in (True, False))
    assert torch.equal(one.images, bits) and one.size < eight.size
    with pytest.raises(ValueError, match="255"):
        one_sheet(255 * images, "png")


@pytest.mark.parametrize(("channels", "corrupt"), [(1, ReplacePixels(0.25)), (2, DropPixels(0.5))])
def test_a_unet_learns_in_the_loop_of_the_vae(channels, corrupt, images):
    model = UNet(channels)
    history = fit(model, images, corrupt=corrupt, epochs=60, batch_size=7, seed=0, progress=False)
    estimate = model(torch.cat([images] * channels, dim=1))
    assert estimate.shape == images.shape and estimate.min() >= 0 and estimate.max() <= 1
    assert history.column("loss")[-1] < 0.5 * history.column("loss")[0]


def test_a_unet_refuses_images_whose_sides_it_cannot_halve_twice():
    with pytest.raises(ValueError, match=r"\(2, 1, 30, 28\)"):
        fit(UNet(), torch.zeros(2, 1, 30, 28), progress=False)


@pytest.mark.parametrize("method", [road_median, partial(road_median, mode="reflect"), total_variation_l1])
def test_filters_leave_a_flat_image_and_remove_a_lonely_pixel(method):
    flat = torch.full((1, 1, 9, 9), 0.4)
    lonely = flat.clone()
    lonely[0, 0, 4, 4] = 1
    edge = slice(1, -1) if method is road_median else slice(None)  # where this one meets black
    for noisy in (flat, lonely):
        torch.testing.assert_close(method(noisy, 1.0)[..., edge, edge], flat[..., edge, edge], atol=0.02, rtol=0)


@pytest.mark.parametrize(("mode", "grey"), [("constant", 0.0), ("reflect", 0.4)])
def test_at_the_edge_the_median_sees_black_or_the_image_reflected(mode, grey):
    noisy = torch.full((1, 1, 9, 9), grey)
    noisy[0, 0, 0, 4] = noisy[0, 0, 8, 8] = 1
    assert torch.equal(road_median(noisy, 1.0, mode), torch.full_like(noisy, grey))


def test_the_linear_filter_leaves_images_alone_when_there_is_no_noise_and_else_shrinks_the_error(images):
    assert (lmmse(images, torch.eye(256))(images) - images).abs().max() < 0.05
    channel = 0.5 * torch.eye(256) + 0.5 / 256
    noisy = ReplacePixels(0.5)(images, torch.Generator().manual_seed(0)).images
    before, after = ((x - images).square().mean() for x in (noisy, lmmse(images, channel)(noisy)))
    assert after < 0.5 * before
