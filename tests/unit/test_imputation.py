"""Gaps are filled as the textbook formula says, and what was observed is never touched."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from vae_utils.imputation import condition

SHAPE = (1, 2, 3)  # six pixels
D = 6


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(n=5):
    """Images, masks that see different numbers of pixels (from none to all, the first twice), and a Gaussian."""
    images, mean = torch.rand(n, *SHAPE, generator=rng()), torch.rand(n, *SHAPE, generator=rng(3))
    counts = torch.arange(n) * D // max(n - 1, 1)
    order = torch.rand(n, D, generator=rng(1)).argsort(dim=1)
    observed = (order < counts[:, None]).view(n, *SHAPE)
    root = torch.randn(D, D, generator=rng(2))
    covariance = 0.01 * root.T @ root + 1e-3 * torch.eye(D)
    return (
        torch.cat([images, images[1:2] / 2]),
        torch.cat([observed, observed[1:2]]),
        torch.cat([mean, mean[:1]]),
        covariance,
    )


def by_formula(x, seen, mean, sigma):
    """Bishop (2006), equations 2.96 and 2.97, one image at a time, in float64."""
    x, mean, sigma = (np.asarray(values, dtype=np.float64) for values in (x, mean, sigma))
    o, m = np.flatnonzero(seen), np.flatnonzero(~np.asarray(seen))
    out, left = x.copy(), np.zeros((D, D))
    gain = sigma[np.ix_(m, o)] @ np.linalg.inv(sigma[np.ix_(o, o)])
    out[m] = mean[m] + gain @ (x[o] - mean[o])
    left[np.ix_(m, m)] = sigma[np.ix_(m, m)] - gain @ sigma[np.ix_(o, m)]
    return out, left


def test_mean_spread_and_evidence_are_the_textbooks():
    images, observed, mean, covariance = problem()
    filled = condition(images, observed, mean=mean, covariance=covariance, std=True)
    for n in range(len(images)):
        seen = observed[n].flatten()
        expected, left = by_formula(images[n].flatten(), seen, mean[n].flatten(), covariance)
        np.testing.assert_allclose(filled.images[n].flatten(), expected, atol=1e-4)
        np.testing.assert_allclose(filled.std[n].flatten(), np.sqrt(np.diag(left)), atol=1e-4)
        if seen.any():
            density = multivariate_normal(mean[n].flatten()[seen].numpy(), covariance[seen][:, seen].numpy())
            nats = density.logpdf(images[n].flatten()[seen].numpy()) + 0.5 * int(seen.sum()) * np.log(2 * np.pi)
            assert filled.evidence[n] == pytest.approx(nats, rel=1e-3, abs=1e-3)


def test_draws_have_the_conditional_mean_and_covariance():
    images, observed, mean, covariance = problem(3)
    filled = condition(images, observed, mean=mean, covariance=covariance, samples=20_000, generator=rng(5))
    again = condition(images, observed, mean=mean, covariance=covariance, samples=20_000, generator=rng(5))
    assert torch.equal(filled.samples, again.samples)
    torch.testing.assert_close(filled.samples.mean(0), filled.images, atol=5e-3, rtol=0)
    for n in range(len(images)):
        left = by_formula(images[n].flatten(), observed[n].flatten(), mean[n].flatten(), covariance)[1]
        np.testing.assert_allclose(np.cov(filled.samples[:, n].flatten(1).T), left, atol=5e-3)


def test_what_was_observed_comes_back_and_what_is_missing_is_not_looked_at():
    images, observed, mean, covariance = problem(20)
    filled = condition(images, observed, mean=mean, covariance=covariance, std=True, samples=3)
    assert torch.equal(filled.images[observed], images[observed])
    assert torch.equal(filled.samples[:, observed], images[observed].expand(3, -1))
    assert (filled.std[observed] == 0).all() and (filled.std[~observed] > 0).all()
    other = condition(torch.where(observed, images, torch.nan), observed, mean=mean, covariance=covariance)
    assert torch.equal(other.images, filled.images)


def test_nothing_seen_gives_the_mean_and_everything_seen_the_image():
    images, _, mean, covariance = problem(4)
    nothing = torch.zeros_like(images, dtype=torch.bool)
    blind = condition(images, nothing, mean=0.5, covariance=covariance, std=True)
    torch.testing.assert_close(blind.images, torch.full_like(images, 0.5))
    torch.testing.assert_close(blind.std[0].flatten(), covariance.diagonal().sqrt())
    assert torch.equal(condition(images, ~nothing, mean=mean, covariance=covariance, samples=2).samples[1], images)


def test_a_covariance_that_is_none_is_refused():
    images, observed, mean, _ = problem()
    with pytest.raises(torch.linalg.LinAlgError):
        condition(images, observed, mean=mean, covariance=-torch.eye(D))
