"""Gaps are filled as the textbook formula says, what was observed is never touched, and bad input is refused in words."""

import numpy as np
import pytest
import torch
from torch import nn

from vae_utils.corruption import DropPixels
from vae_utils.imputation import Imputer, condition, from_nan, guess, learn_residuals
from vae_utils.model import VAE

SHAPE = (1, 2, 3)  # six pixels
D = 6


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(n=5, seed=0):
    """Images, masks that see different numbers of pixels (from none to all), and a Gaussian."""
    images = torch.rand(n, *SHAPE, generator=rng(seed))
    counts = torch.arange(n) * D // max(n - 1, 1)
    order = torch.rand(n, D, generator=rng(seed + 1)).argsort(dim=1)
    observed = (order < counts[:, None]).view(n, *SHAPE)
    root = torch.randn(D, D, generator=rng(seed + 2))
    return images, observed, 0.01 * root.T @ root, torch.full((D,), 0.5)


def by_formula(x, seen, mean, sigma):
    """Bishop (2006), eqs. 2.96 and 2.97, one image at a time, in float64."""
    x, mean, sigma = (np.asarray(values, dtype=np.float64) for values in (x, mean, sigma))
    o, m = np.flatnonzero(seen), np.flatnonzero(~np.asarray(seen))
    out, std = x.copy(), np.zeros(D)
    gain = sigma[np.ix_(m, o)] @ np.linalg.inv(sigma[np.ix_(o, o)])
    out[m] = mean[m] + gain @ (x[o] - mean[o])
    std[m] = np.sqrt(np.diag(sigma[np.ix_(m, m)] - gain @ sigma[np.ix_(o, m)]))
    return out.clip(0, 1), std


@pytest.mark.parametrize("batch_size", [2, 50])
def test_condition_is_the_textbook_formula(batch_size):
    images, observed, covariance, mean = problem()
    filled = condition(images, observed, mean=mean, covariance=covariance, noise=0.02, std=True, batch_size=batch_size)
    for x, seen, image, std in zip(images, observed, filled.images, filled.std, strict=True):
        expected = by_formula(x.flatten(), seen.flatten(), mean, covariance + 0.02**2 * torch.eye(D))
        np.testing.assert_allclose(image.flatten(), expected[0], atol=2e-4)
        np.testing.assert_allclose(std.flatten(), expected[1], atol=2e-4)


def test_scale_spread_and_a_mean_an_image_enter_the_covariance_as_documented():
    images, observed, covariance, _ = problem()
    mean, scale = torch.rand(5, D, generator=rng(7)), 0.5 + torch.rand(5, D, generator=rng(8))
    spread = 0.1 * torch.randn(5, 3, D, generator=rng(9))
    filled = condition(
        images, observed, mean=mean, covariance=covariance, scale=scale, spread=spread, noise=0.05, std=True
    )
    for n in range(5):
        sigma = scale[n].diag() @ covariance @ scale[n].diag() + spread[n].T @ spread[n] + 0.05**2 * torch.eye(D)
        expected = by_formula(images[n].flatten(), observed[n].flatten(), mean[n], sigma)
        np.testing.assert_allclose(filled.images[n].flatten(), expected[0], atol=2e-4)
        np.testing.assert_allclose(filled.std[n].flatten(), expected[1], atol=2e-4)


def test_samples_have_the_conditional_mean_and_spread():
    images, observed, covariance, mean = problem(3)
    options = {"scale": torch.full((3, D), 0.5), "spread": 0.05 * torch.randn(3, 2, D, generator=rng(4))}
    filled = condition(images, observed, mean=mean, covariance=0.1 * covariance, std=True, samples=20_000, **options)
    assert filled.samples.shape == (20_000, *images.shape)
    torch.testing.assert_close(filled.samples.mean(0), filled.images, atol=5e-3, rtol=0)
    torch.testing.assert_close(filled.samples.std(0), filled.std, atol=5e-3, rtol=0)


def test_observed_pixels_come_back_bit_for_bit_in_guess_and_samples():
    images, observed, covariance, mean = problem(20)
    filled = condition(images, observed, mean=mean, covariance=covariance, std=True, samples=3)
    assert torch.equal(filled.images[observed], images[observed])
    assert torch.equal(filled.samples[:, observed], images[observed].expand(3, -1))
    assert (filled.std[observed] == 0).all() and (filled.std[~observed] > 0).all()
    assert filled.samples.min() >= 0 and filled.samples.max() <= 1


def test_values_of_missing_pixels_are_not_looked_at():
    images, observed, covariance, mean = problem()
    other = torch.where(observed, images, 1 - images)
    first, second = (condition(x, observed, mean=mean, covariance=covariance).images for x in (images, other))
    assert torch.equal(first, second)


def test_nothing_seen_gives_the_mean_and_everything_seen_the_image():
    images, _, covariance, mean = problem(4)
    nothing = torch.zeros_like(images, dtype=torch.bool)
    blind = condition(images, nothing, mean=mean, covariance=covariance, noise=0.01, std=True)
    torch.testing.assert_close(blind.images, torch.full_like(images, 0.5))
    torch.testing.assert_close(blind.std[0].flatten(), (covariance.diagonal() + 1e-4).sqrt())
    assert torch.equal(condition(images, ~nothing, mean=mean, covariance=covariance).images, images)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observed": torch.ones(5, 1, 3, 2, dtype=torch.bool)}, r"\(5, 1, 3, 2\)"),
        ({"observed": torch.ones(5, 1, 2, 3)}, "float32"),
        ({"observed": torch.full((5, 1, 2, 3), 255, dtype=torch.uint8)}, "uint8"),
        ({"images": torch.full((5, 1, 2, 3), torch.nan)}, "NaN"),
        ({"images": torch.full((5, 1, 2, 3), 255.0)}, "255"),
        ({"covariance": -torch.eye(6)}, "negative eigenvalues"),
    ],
)
def test_bad_input_is_refused(change, words):
    images, observed, covariance, mean = problem()
    arguments = {"images": images, "observed": observed, "mean": mean, "covariance": covariance} | change
    with pytest.raises(ValueError, match=words):
        condition(**arguments)


def test_nan_marks_become_zeros_and_a_mask():
    images, observed, *_ = problem()
    corrupted = from_nan(images.where(observed, torch.nan))
    assert torch.equal(corrupted.observed, observed)
    assert torch.equal(corrupted.images, images * observed)
    with pytest.raises(ValueError, match="255"):
        from_nan(torch.tensor([torch.nan, 255.0]).view(1, 1, 1, 2))


# --- residuals of a model ------------------------------------------------------------------------------------------------


def test_residuals_are_measured_by_the_guessed_grey_value():
    guessed = torch.cat([torch.full((4000, *SHAPE), 0.02), torch.full((4000, *SHAPE), 0.5)])
    noise = torch.randn(guessed.shape, generator=rng())
    truth = guessed + noise * torch.where(guessed > 0.1, 0.2, 0.01)
    sizes = learn_residuals(truth=truth, guess=guessed).size(torch.tensor([0.02, 0.5]))
    torch.testing.assert_close(sizes, torch.tensor([0.01, 0.2]), rtol=0.05, atol=0)


def test_residuals_have_the_correlation_that_made_them():
    root = torch.eye(D) + 0.5 * torch.diag(torch.ones(D - 1), 1)
    noise = torch.randn(20_000, D, generator=rng()) @ root
    noise = noise / noise.std(0)
    guessed = torch.full((20_000, *SHAPE), 0.5)
    truth = guessed + 0.1 * noise.view_as(guessed)
    expected = torch.corrcoef(noise.T)
    torch.testing.assert_close(learn_residuals(truth=truth, guess=guessed).correlation, expected, atol=0.02, rtol=0)
    known = torch.rand(truth.shape, generator=rng(1)) < 0.5  # from half of the values: the same, with more noise
    gappy = torch.where(known, truth, 0.9)
    learnt = learn_residuals(truth=gappy, guess=guessed, known=known)
    torch.testing.assert_close(learnt.correlation, expected, atol=0.06, rtol=0)


def test_residuals_are_not_learnt_from_nan():
    with pytest.raises(ValueError, match="NaN"):
        learn_residuals(truth=torch.full((3, *SHAPE), torch.nan), guess=torch.zeros(3, *SHAPE))


class Constant(nn.Module):
    """A network that says the same whatever it is given."""

    def __init__(self, value, *shape):
        super().__init__()
        self.answer = nn.Parameter(torch.full(shape, value))

    def forward(self, x):
        return self.answer.expand(len(x), *self.answer.shape)


def constant_vae(logit=0.0):
    return VAE(latent_dim=2, in_channels=2, encoder=Constant(0.0, 4), decoder=Constant(logit, *SHAPE))


def correlated_images(n, seed):
    brightness = torch.rand(n, 1, 1, 1, generator=rng(seed))
    return (0.2 + 0.6 * brightness + 0.05 * torch.randn(n, *SHAPE, generator=rng(seed + 1))).clamp(0, 1)


def test_an_imputer_of_a_model_that_knows_nothing_is_the_gaussian():
    train, new = correlated_images(4000, 0), correlated_images(50, 10)
    imputer = Imputer.learn(constant_vae(), train, DropPixels(0.5))
    _, observed = DropPixels(0.5)(new, rng())
    centred = (train - 0.5).flatten(1)
    expected = condition(new, observed, mean=torch.full((D,), 0.5), covariance=centred.T @ centred / len(train))
    filled = imputer.fill(new, observed, std=True, samples=2)
    torch.testing.assert_close(filled.images, expected.images, atol=2e-3, rtol=0)
    assert filled.std.shape == new.shape and filled.samples.shape == (2, *new.shape)
    assert torch.equal(filled.images[observed], new[observed])
    plain = guess(imputer.model, new, observed)
    missing = ~observed
    assert (filled.images - new)[missing].square().mean() < 0.2 * (plain - new)[missing].square().mean()


def test_an_imputer_that_sees_nothing_gives_the_models_guess():
    imputer = Imputer.learn(constant_vae(1.0), correlated_images(100, 0), DropPixels(0.5))
    images = torch.zeros(3, *SHAPE)
    filled = imputer.fill(images, torch.zeros_like(images, dtype=torch.bool))
    torch.testing.assert_close(filled.images, torch.sigmoid(torch.ones_like(images)))


def test_an_imputer_learns_from_incomplete_images():
    whole = correlated_images(4000, 0)
    known = DropPixels(0.5)(whole, rng(3)).observed
    options = {"holes": DropPixels(0.2)}
    learnt = Imputer.learn(constant_vae(), torch.where(known, whole, 0.0), known=known, **options)
    other = Imputer.learn(constant_vae(), torch.where(known, whole, 1.0), known=known, **options)
    assert torch.equal(learnt.residuals.correlation, other.residuals.correlation), "unknown pixels leaked"
    complete = Imputer.learn(constant_vae(), whole, **options)
    torch.testing.assert_close(learnt.residuals.correlation, complete.residuals.correlation, atol=0.1, rtol=0)


def test_the_residuals_learnt_from_incomplete_images_are_a_covariance():
    whole = correlated_images(20, 0)
    known = DropPixels(0.5)(whole, rng(3)).observed
    correlation = learn_residuals(truth=whole, guess=torch.full_like(whole, 0.4), known=known).correlation
    assert torch.linalg.eigvalsh(correlation).min() > -1e-4


def test_a_code_that_is_unsure_lets_pixels_move_together():
    decoder = nn.Sequential(nn.Linear(1, D), nn.Unflatten(1, SHAPE))
    nn.init.ones_(decoder[0].weight)
    nn.init.zeros_(decoder[0].bias)
    model = VAE(
        latent_dim=1, in_channels=2, encoder=Constant(0.0, 2), decoder=decoder
    )  # z ~ N(0, 1), logit z everywhere
    tiny = learn_residuals(truth=torch.full((2, *SHAPE), 0.5), guess=torch.full((2, *SHAPE), 0.5))
    image, observed = torch.full((1, *SHAPE), 0.7), torch.zeros(1, *SHAPE, dtype=torch.bool)
    observed[..., 0] = True
    filled = Imputer(model, tiny).fill(image, observed, std=True)
    torch.testing.assert_close(filled.images, image, atol=0.01, rtol=0)
    assert filled.std.max() < 0.05, "one pixel tells the code, and with it the others"
    nothing = torch.zeros_like(observed)
    moved = (
        torch.sigmoid(torch.tensor([1.0, 2.0])) - 0.5
    )  # one perturbation of a standard deviation; of two with beta = 1/4
    for beta, expected in zip((1.0, 0.25), moved, strict=True):
        std = Imputer(model, tiny, beta).fill(image, nothing, std=True).std
        torch.testing.assert_close(std, torch.full_like(std, expected.item()), atol=0.01, rtol=0)
