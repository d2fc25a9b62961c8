"""Metrics against scikit-image, hand-made numbers, and swapped arguments."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from vae_utils.metrics import bootstrap_interval, missing_mse, mse, psnr, ssim


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(5, 1, 28, 28, generator=generator)
    return clean, (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def test_psnr_is_scikit_images(pair):
    clean, estimate = pair
    expected = [
        peak_signal_noise_ratio(c.numpy(), e.numpy(), data_range=1) for c, e in zip(clean, estimate, strict=True)
    ]
    np.testing.assert_allclose(psnr(clean=clean, estimate=estimate), expected, rtol=1e-4)
    assert psnr(clean=torch.zeros(1, 1, 28, 28), estimate=torch.full((1, 1, 28, 28), 0.1)).item() == pytest.approx(20)
    assert psnr(clean=clean, estimate=clean)[0].item() == math.inf


def test_ssim_is_one_for_equal_images_and_less_for_others(pair):
    clean, estimate = pair
    np.testing.assert_allclose(ssim(clean=clean, estimate=clean), 1)
    assert (ssim(clean=clean, estimate=estimate) < 0.999).all()


def test_metrics_take_named_arguments_only(pair):
    for metric in (mse, psnr, ssim):
        with pytest.raises(TypeError):
            metric(*pair)
    with pytest.raises(TypeError):
        missing_mse(*pair, pair[0] > 0.5)


def test_the_errors_of_missing_pixels_alone_count():
    clean, estimate = torch.zeros(1, 1, 28, 28), torch.zeros(1, 1, 28, 28)
    observed = torch.ones(1, 1, 28, 28, dtype=torch.bool)
    observed[0, 0, 0, :2] = False
    estimate[0, 0, 0, 0] = 0.4  # missing
    estimate[0, 0, 5, 5] = 1.0  # observed: somebody else's error
    assert missing_mse(clean=clean, estimate=estimate, observed=observed).item() == pytest.approx(0.08)
    # swapping mask and its opposite must show
    assert missing_mse(clean=clean, estimate=estimate, observed=~observed).item() == pytest.approx(1 / 782)
    assert missing_mse(clean=clean, estimate=estimate, observed=torch.ones_like(observed)).isnan().all()


def test_different_shapes_are_refused(pair):
    for metric in (mse, psnr, ssim):
        with pytest.raises(ValueError, match=r"\(4, 1, 28, 28\)"):
            metric(clean=pair[0], estimate=pair[1][:4])


def test_the_bootstrap_interval_is_that_of_the_mean():
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * 3 + 1
    low, high = bootstrap_interval(values)
    error = 3 / math.sqrt(2000)
    assert low == pytest.approx(values.mean().item() - 1.96 * error, abs=0.4 * error)
    assert high == pytest.approx(values.mean().item() + 1.96 * error, abs=0.4 * error)
    assert bootstrap_interval(values) == (low, high)
    for bad in (torch.tensor([1.0]), torch.tensor([1.0, math.inf]), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="at least 2 finite"):
            bootstrap_interval(bad)
