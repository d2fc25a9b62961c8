"""Metrics against scikit-image, scikit-learn, hand-made numbers, and swapped arguments."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from sklearn.neighbors import NearestNeighbors

from vae_utils.metrics import auroc, bootstrap_interval, missing_mse, mse, nearest, psnr


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(5, 1, 28, 28, generator=generator)
    return clean, (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def test_psnr_is_scikit_images(pair):
    clean, estimate = pair
    expected = [
        peak_signal_noise_ratio(*images, data_range=1) for images in zip(clean.numpy(), estimate.numpy(), strict=True)
    ]
    np.testing.assert_allclose(psnr(clean=clean, estimate=estimate), expected, rtol=1e-4)
    assert psnr(clean=torch.zeros(1, 1, 28, 28), estimate=torch.full((1, 1, 28, 28), 0.1)).item() == pytest.approx(20)
    assert psnr(clean=clean, estimate=clean)[0].item() == math.inf


def test_arguments_are_named_and_shapes_equal(pair):
    for metric in (mse, psnr):
        with pytest.raises(TypeError):
            metric(*pair)
        with pytest.raises(ValueError):
            metric(clean=pair[0], estimate=pair[1][:4])
    with pytest.raises(TypeError):
        auroc(torch.zeros(2), torch.ones(2))


def test_the_errors_of_missing_pixels_alone_count():
    clean, estimate = torch.zeros(1, 1, 1, 4), torch.tensor([0.4, 0.0, 1.0, 0.0]).view(1, 1, 1, 4)
    observed = torch.tensor([False, False, True, True]).view(1, 1, 1, 4)
    assert missing_mse(clean=clean, estimate=estimate, observed=observed).item() == pytest.approx(0.08)
    assert missing_mse(clean=clean, estimate=estimate, observed=~observed).item() == pytest.approx(0.5)
    assert missing_mse(clean=clean, estimate=estimate, observed=torch.ones_like(observed)).isnan().all()


def test_the_bootstrap_interval_is_that_of_the_mean():
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * 3 + 1
    error = 3 / math.sqrt(2000)
    expected = [values.mean().item() + side * error for side in (-1.96, 1.96)]
    assert bootstrap_interval(values) == pytest.approx(expected, abs=0.4 * error)
    for bad in (torch.tensor([1.0]), torch.tensor([1.0, math.inf]), torch.zeros(2, 2)):
        with pytest.raises(ValueError):
            bootstrap_interval(bad)


def test_neighbours_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    queries, reference = (torch.randn(n, 6, generator=generator) for n in (410, 300))
    expected, which = NearestNeighbors(n_neighbors=4).fit(reference.numpy()).kneighbors(queries.numpy())
    distances, found = nearest(queries, reference, k=4)
    np.testing.assert_allclose(distances, expected, rtol=1e-4)
    np.testing.assert_array_equal(found, which)
    assert nearest(reference, reference, k=1)[0].max() == 0
    with pytest.raises(RuntimeError):
        nearest(queries, reference, k=301)


def test_the_auroc_has_a_direction_and_counts_ties_half():
    normal, strange = torch.tensor([1.0, 2, 2, 4]), torch.tensor([2.0, 3, 5])
    assert auroc(normal=normal, strange=strange) == pytest.approx(9 / 12)
    assert auroc(normal=strange, strange=normal) == pytest.approx(3 / 12)
    with pytest.raises(ValueError):
        auroc(normal=normal, strange=torch.tensor([math.nan]))
