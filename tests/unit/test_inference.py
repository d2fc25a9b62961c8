"""Bounds on the likelihood against a model whose likelihood is known in closed form."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from vae_utils import inference
from vae_utils.model import VAE, Autoencoder


@pytest.fixture
def linear_gaussian():
    """x = A z + b + σ·noise: log p(x) is Gaussian, and so is the true posterior; the encoder is a bit off it."""
    torch.manual_seed(0)
    model = VAE(2, encoder=nn.Linear(5, 4), decoder=nn.Linear(2, 5), likelihood="gaussian")
    model.log_sigma.data.fill_(-0.5)
    a, b, sigma2 = model.decoder.weight.data, model.decoder.bias.data, math.exp(-1.0)
    precision = torch.eye(2) + a.T @ a / sigma2
    posterior = torch.linalg.inv(precision) @ a.T / sigma2
    model.encoder.weight.data.zero_()
    model.encoder.weight.data[:2] = 0.4 * posterior
    model.encoder.bias.data[:2] = -0.4 * posterior @ b
    model.encoder.bias.data[2:] = torch.log(2.0 * torch.diagonal(torch.linalg.inv(precision)))
    x = torch.randn(40, 5)
    truth = MultivariateNormal(b, a @ a.T + sigma2 * torch.eye(5)).log_prob(x)
    return model, x, truth


def test_elbo_below_importance_weighted_bound_below_the_truth(linear_gaussian):
    model, x, truth = linear_gaussian
    elbo = inference.elbo(model, x, samples=2000)
    bounds = [inference.importance_weighted_bound(model, x, samples).mean().item() for samples in (1, 10, 2000)]
    assert (elbo < truth + 0.1).all()
    assert elbo.mean().item() < bounds[1] < bounds[2] < truth.mean().item() + 0.02
    assert bounds[2] == pytest.approx(truth.mean().item(), abs=0.02)


def test_bounds_depend_on_the_seed_alone(linear_gaussian):
    model, x, _ = linear_gaussian
    assert torch.equal(inference.elbo(model, x, seed=1), inference.elbo(model, x, seed=1))
    assert not torch.equal(inference.elbo(model, x, seed=1), inference.elbo(model, x, seed=2))


def test_reconstruct_is_decode_of_mu_for_both_kinds_and_any_batch_size():
    x = torch.rand(7, 1, 28, 28)
    for model in (VAE(3), Autoencoder(3)):
        codes = inference.encode(model, x, batch_size=2)
        codes = codes[0] if isinstance(codes, tuple) else codes
        torch.testing.assert_close(inference.reconstruct(model, x, batch_size=3), model.decode(codes).detach())


def test_encode_keeps_mu_and_logvar_apart():
    model = VAE(3)
    x = torch.rand(4, 1, 28, 28)
    mu, logvar = inference.encode(model, x)
    expected_mu, expected_logvar = model.encode(x)
    torch.testing.assert_close(mu, expected_mu.detach())
    torch.testing.assert_close(logvar, expected_logvar.detach())


def test_active_units_are_those_whose_mean_moves():
    mu = torch.randn(500, 3) * torch.tensor([1.0, 0.05, 0.2])
    assert inference.active_units(mu).tolist() == [True, False, True]
