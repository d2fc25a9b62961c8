"""Bayes by hand and by counting, least squares by NumPy, the linear filter by simulation, and what must be refused."""

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from skimage.restoration import denoise_tv_chambolle

from vae_utils import denoising
from vae_utils.corruption import ReplacePixels
from vae_utils.denoising import (
    BlindSpotFilter,
    CleanPixels,
    Denoiser,
    LinearFilter,
    estimate_fraction,
    to_grey_levels,
    weigh,
)
from vae_utils.metrics import psnr


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def strokes():
    """60 images of thick bright lines on black: neighbours say much about a pixel."""
    images = torch.zeros(60, 1, 28, 28)
    places = torch.randint(3, 22, (60, 2), generator=generator())
    for image, (row, column) in zip(images, places.tolist(), strict=True):
        image[0, row : row + 4, 4:24] = 0.8
        image[0, 4:24, column : column + 4] = 0.8
    return to_grey_levels(images)


# --- grey levels ------------------------------------------------------------------------------------------------------


def test_uniform_grey_levels_are_the_frequencies_of_rounded_noise():
    probability = denoising.uniform_grey_levels()
    assert probability.sum().item() == pytest.approx(1)
    values = torch.rand(1_000_000, generator=generator())
    frequency = torch.bincount((values * 255).round().long(), minlength=256) / len(values)
    torch.testing.assert_close(probability, frequency, rtol=0, atol=4e-4)


# --- weighing ---------------------------------------------------------------------------------------------------------


def two_valued(prediction_dark=0.1, prediction_bright=0.9):
    """A table under which clean pixels are 0 where the prediction is dark and 1 where it is bright, but for 1 in 10."""
    prediction = torch.tensor([prediction_dark, prediction_bright]).repeat_interleave(500_000).view(1, 1, 1000, 1000)
    wrong = torch.arange(1_000_000).view_as(prediction) % 10 == 0
    return CleanPixels.count(prediction=prediction, clean=((prediction > 0.5) ^ wrong).float())


def test_the_table_holds_shares_of_pixels():
    table = two_valued()
    torch.testing.assert_close(table.probability.sum(1), torch.ones(denoising.PREDICTION_BINS))
    dark, bright = torch.tensor([[[[0.1]]]]), torch.tensor([[[[0.9]]]])
    assert table.likelihood(noisy=torch.zeros(1, 1, 1, 1), prediction=dark).item() == pytest.approx(0.9, abs=1e-3)
    assert table.likelihood(noisy=torch.zeros(1, 1, 1, 1), prediction=bright).item() == pytest.approx(0.1, abs=1e-3)
    assert table.mean(dark).item() == pytest.approx(0.1, abs=1e-3)
    assert table.mean(bright).item() == pytest.approx(0.9, abs=1e-3)
    # swapping truth and prediction is another table
    swapped = CleanPixels.count(prediction=torch.zeros(1, 1, 4, 4), clean=torch.full((1, 1, 4, 4), 0.9))
    assert swapped.mean(torch.zeros(1, 1, 1, 1)).item() > 0.5


def test_weigh_is_bayes_rule():
    noisy, prediction = torch.tensor([[[[0.0, 1.0, 0.4]]]]), torch.full((1, 1, 1, 3), 0.1)
    weighed = weigh(noisy, prediction, two_valued(), 0.25)
    for pixel, (likelihood, uniform) in enumerate([(0.9, 0.5 / 255), (0.1, 0.5 / 255), (0.0, 1 / 255)]):
        belief = 0.75 * likelihood / (0.75 * likelihood + 0.25 * uniform)
        assert weighed.belief[0, 0, 0, pixel].item() == pytest.approx(belief, abs=2e-3)
        expected = belief * noisy[0, 0, 0, pixel].item() + (1 - belief) * 0.1
        assert weighed.images[0, 0, 0, pixel].item() == pytest.approx(expected, abs=2e-3)


def test_belief_is_the_share_of_untouched_pixels(strokes):
    clean = strokes
    spoilt, observed = ReplacePixels(0.3)(clean, generator(1))
    prediction = torch.full_like(clean, 0.5)
    belief = weigh(
        to_grey_levels(spoilt), prediction, CleanPixels.count(prediction=prediction, clean=clean), 0.3
    ).belief
    for low, high in ((0, 0.3), (0.7, 1.01)):
        mine = (belief >= low) & (belief < high)
        assert belief[mine].mean().item() == pytest.approx(observed[mine].float().mean().item(), abs=0.02)


def test_no_noise_keeps_every_pixel_and_pure_noise_none():
    noisy = to_grey_levels(torch.rand(2, 1, 28, 28, generator=generator()))
    prediction = torch.rand(2, 1, 28, 28, generator=generator(1))
    table = CleanPixels.count(prediction=prediction, clean=noisy)
    kept = weigh(noisy, prediction, table, 0.0)
    torch.testing.assert_close(kept.images, noisy)
    assert (kept.belief == 1).all()
    lost = weigh(noisy, prediction, table, 1.0)
    torch.testing.assert_close(lost.images, table.mean(prediction))
    assert (lost.belief == 0).all()
    each = weigh(noisy, prediction, table, torch.tensor([0.0, 1.0]))  # one fraction an image
    torch.testing.assert_close(each.belief[:, 0, 0, 0], torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    "fraction", [-0.1, 1.1, float("nan"), torch.tensor([0.1, 2.0]), torch.zeros(2, 2), torch.zeros(3)]
)
def test_impossible_fractions_are_refused(fraction):
    x = torch.zeros(2, 1, 4, 4)
    table = CleanPixels.count(prediction=x, clean=x)
    with pytest.raises(ValueError, match="one number or one for each image"):
        weigh(x, x, table, fraction)


def test_the_fraction_is_found_from_the_images_alone(strokes):
    prediction = torch.full_like(strokes, 0.5)
    table = CleanPixels.count(prediction=prediction, clean=strokes)
    for fraction in (0.05, 0.4):
        noisy = to_grey_levels(ReplacePixels(fraction)(strokes, generator(2)).images)
        found = estimate_fraction(noisy, prediction, table)
        assert found.shape == (60,)
        assert found.mean().item() == pytest.approx(fraction, abs=0.02)


# --- the neighbours ---------------------------------------------------------------------------------------------------


def test_the_filter_is_numpys_least_squares():
    pictures = torch.rand(3, 2, 8, 8, generator=generator())
    clean = torch.rand(3, 1, 8, 8, generator=generator(1))
    fitted = BlindSpotFilter.fit(pictures, clean, blind=[1], size=3)
    padded = np.pad(pictures.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = [
        [*padded[n, 0, i : i + 3, j : j + 3].flatten(), *np.delete(padded[n, 1, i : i + 3, j : j + 3].flatten(), 4), 1]
        for n in range(3)
        for i in range(8)
        for j in range(8)
    ]
    expected = np.linalg.lstsq(np.array(rows), clean.flatten().numpy(), rcond=None)[0]
    kernel = fitted.kernel.flatten().numpy()
    np.testing.assert_allclose(np.delete(kernel, 13), expected[:-1], atol=1e-3)
    assert fitted.bias.item() == pytest.approx(expected[-1], abs=1e-3)
    prediction = np.clip(np.array(rows) @ expected, 0, 1).reshape(3, 1, 8, 8)
    np.testing.assert_allclose(fitted(pictures), prediction, atol=1e-3)


def test_a_pixel_has_no_say_about_itself():
    pictures = torch.rand(20, 1, 9, 9, generator=generator())
    fitted = BlindSpotFilter.fit(pictures, pictures, blind=[0])
    changed = pictures.clone()
    changed[:, :, 4, 4] = 1 - changed[:, :, 4, 4]
    assert torch.equal(fitted(pictures)[:, :, 4, 4], fitted(changed)[:, :, 4, 4])
    seeing = BlindSpotFilter.fit(pictures, pictures, blind=[])
    torch.testing.assert_close(seeing(pictures), pictures, rtol=0, atol=1e-3)


# --- the whole --------------------------------------------------------------------------------------------------------


def test_denoiser_without_a_model_beats_the_median(strokes):
    learn, test = strokes[:40], strokes[40:]
    denoiser = Denoiser.fit(None, learn, [0.1, 0.3], rounds=2)
    noisy = to_grey_levels(ReplacePixels(0.1)(test, generator(3)).images)
    told, alone = denoiser(noisy, 0.1), denoiser(noisy)
    best = psnr(clean=test, estimate=denoising.median(noisy, 3)).mean()
    for weighed in (told, alone):
        assert psnr(clean=test, estimate=weighed.images).mean() > best + 3
        assert weighed.belief.shape == noisy.shape
    # a fraction for each image gives what each would have got by itself
    levels = torch.tensor([0.1, 0.3]).repeat(10)
    mixed = denoiser(noisy, levels)
    torch.testing.assert_close(mixed.images[1:2], denoiser(noisy[1:2], 0.3).images)
    torch.testing.assert_close(denoiser(noisy, 0.1, rounds=2).images, told.images)
    assert not torch.equal(denoiser(noisy, 0.1, rounds=1).images, told.images)


# --- classical filters ------------------------------------------------------------------------------------------------


def test_no_other_linear_filter_is_better_than_lmmse(strokes):
    fraction, copies = 0.25, strokes.repeat(60, 1, 1, 1)[:, :, ::4, ::4]  # 7×7, so that the sample decides
    touched = torch.rand(copies.shape, generator=generator(4)) < fraction
    noisy = torch.where(touched, torch.rand(copies.shape, generator=generator(5)), copies)
    fitted = LinearFilter.fit(copies, [fraction])[fraction]
    x, y = copies.flatten(1).numpy(), np.c_[noisy.flatten(1).numpy(), np.ones(len(noisy))]
    best = np.clip(y @ np.linalg.lstsq(y, x, rcond=None)[0], 0, 1)
    error, least = (fitted(noisy).flatten(1).numpy() - x).std(), (best - x).std()
    assert error == pytest.approx(least, rel=0.02)


def test_lmmse_without_noise_returns_the_image(strokes):
    torch.testing.assert_close(LinearFilter.fit(strokes, [0.0])[0.0](strokes), strokes, rtol=0, atol=2e-3)


def test_wrappers_treat_each_image_by_itself(strokes):
    noisy = ReplacePixels(0.1)(strokes[:3], generator(6)).images
    for method in (
        lambda y: denoising.median(y, 3),
        lambda y: denoising.switching_median(y, 0.3),
        lambda y: denoising.total_variation(y, 0.2),
        lambda y: denoising.non_local_means(y, 0.2),
        lambda y: denoising.wavelet(y, 0.2),
    ):
        together = method(noisy)
        assert together.shape == noisy.shape and together.dtype == noisy.dtype
        torch.testing.assert_close(together[1:2], method(noisy[1:2]))
        assert not torch.equal(together, noisy)
    expected = median_filter(noisy[0, 0].numpy(), size=3, mode="constant")
    np.testing.assert_array_equal(denoising.median(noisy, 3)[0, 0], expected)
    expected = np.clip(denoise_tv_chambolle(noisy[0, 0].numpy(), weight=0.2), 0, 1)
    np.testing.assert_allclose(denoising.total_variation(noisy, 0.2)[0, 0], expected, atol=1e-6)


def test_switching_median_keeps_what_is_near_its_median():
    image = torch.full((1, 1, 9, 9), 0.5)
    image[0, 0, 4, 4], image[0, 0, 2, 2] = 0.6, 1.0
    out = denoising.switching_median(image, 0.2)
    assert out[0, 0, 4, 4].item() == pytest.approx(0.6) and out[0, 0, 2, 2].item() == pytest.approx(0.5)


def test_best_setting_is_the_one_with_the_highest_psnr(strokes):
    def scale(images, factor):
        return images * factor

    noisy = (strokes + 0.1).clamp(0, 1)
    assert denoising.best_setting(scale, (0.0, 0.9, 5.0), clean=strokes, noisy=noisy) == 0.9
    # swapped, the question is another one: which factor turns the clean images into the noisy ones?
    assert denoising.best_setting(scale, (0.8, 1.0, 1.2), clean=noisy, noisy=strokes) == 1.2
