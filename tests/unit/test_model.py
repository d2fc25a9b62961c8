"""The network and its loss against an independent copy, closed forms, and bad input."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

from vae_utils import model as package
from vae_utils.model import VAE, Autoencoder


def somebody_elses_state(latent_dim: int) -> dict[str, torch.Tensor]:
    """Weights under the article's names and shapes, written down without looking at the package."""
    shapes = {
        "conv1": (32, 1, 3, 3),
        "conv2": (64, 32, 3, 3),
        "fc1": (400, 3136),
        "fc21": (latent_dim, 400),
        "fc22": (latent_dim, 400),
        "fc3": (400, latent_dim),
        "fc4": (3136, 400),
        "conv2_t": (64, 32, 3, 3),
        "conv1_t": (32, 1, 3, 3),
    }
    generator = torch.Generator().manual_seed(1)
    state = {}
    for name, shape in shapes.items():
        fan = math.prod(shape[1:])
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan)
        outputs = shape[1] if name.endswith("_t") else shape[0]
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return state


def somebody_elses_forward(state, x, eps):
    """The article's forward pass in functional form."""
    s = state
    h = F.relu(F.conv2d(x, s["conv1.weight"], s["conv1.bias"], stride=2, padding=1))
    h = F.relu(F.conv2d(h, s["conv2.weight"], s["conv2.bias"], stride=2, padding=1))
    h = F.relu(F.linear(h.reshape(len(x), -1), s["fc1.weight"], s["fc1.bias"]))
    mu = F.linear(h, s["fc21.weight"], s["fc21.bias"])
    logvar = F.linear(h, s["fc22.weight"], s["fc22.bias"])
    z = mu + eps * torch.exp(logvar / 2)
    h = F.relu(F.linear(z, s["fc3.weight"], s["fc3.bias"]))
    h = F.relu(F.linear(h, s["fc4.weight"], s["fc4.bias"])).reshape(-1, 64, 7, 7)
    h = F.relu(F.conv_transpose2d(h, s["conv2_t.weight"], s["conv2_t.bias"], stride=2, padding=1, output_padding=1))
    h = F.conv_transpose2d(h, s["conv1_t.weight"], s["conv1_t.bias"], stride=2, padding=1, output_padding=1)
    return torch.sigmoid(h), mu, logvar


@pytest.mark.parametrize("latent_dim", [1, 2, 10])
def test_a_foreign_state_dict_loads_and_gives_the_same_outputs_and_loss(latent_dim):
    state = somebody_elses_state(latent_dim)
    vae = VAE(latent_dim)
    vae.load_state_dict(state)
    x = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    recon, mu, logvar = vae(x)
    torch.manual_seed(3)
    expected_recon, expected_mu, expected_logvar = somebody_elses_forward(state, x, torch.randn(5, latent_dim))
    for ours, theirs in ((recon, expected_recon), (mu, expected_mu), (logvar, expected_logvar)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.manual_seed(3)
    recon_loss, kl_loss = vae.loss_terms(x, x)  # on logits, and yet the article's loss
    bce = -(x * expected_recon.log() + (1 - x) * (1 - expected_recon).log()).flatten(1).sum(1)
    kl = 0.5 * (expected_mu**2 + expected_logvar.exp() - 1 - expected_logvar).sum(1)
    torch.testing.assert_close(recon_loss, bce, rtol=1e-5, atol=0)
    torch.testing.assert_close(kl_loss, kl, rtol=1e-5, atol=1e-6)


def test_kl_is_that_of_torch_distributions_and_never_negative():
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(50, 4, generator=generator) * 2, torch.randn(50, 4, generator=generator) * 2
    expected = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(package.kl_divergence(mu, logvar), expected, rtol=1e-4, atol=1e-5)
    assert (expected > 0).all()
    assert package.kl_divergence(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0
    # swapping the arguments must show: KL of N(1, 1) is 1/2, KL of N(0, e) is (e - 2)/2
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    assert package.kl_divergence(one, zero).item() == pytest.approx(0.5)
    assert package.kl_divergence(zero, one).item() == pytest.approx((math.e - 2) / 2)


def test_reparameterize_has_the_mean_and_spread_it_is_given():
    vae = VAE(2)
    mu, logvar = torch.tensor([[1.0, -2.0]]), torch.tensor([[math.log(4.0), math.log(0.25)]])
    torch.manual_seed(0)
    z = vae.reparameterize(mu.expand(20_000, 2), logvar.expand(20_000, 2))
    np.testing.assert_allclose(z.mean(0), [1, -2], atol=4 * 2 / math.sqrt(20_000))
    np.testing.assert_allclose(z.std(0), [2, 0.5], rtol=0.03)


def test_gaussian_reconstruction_loss_is_the_negative_log_density():
    vae = VAE(2, encoder=nn.Linear(5, 4), decoder=nn.Linear(2, 5), likelihood="gaussian")
    vae.log_sigma.data.fill_(0.3)
    x, out = torch.randn(7, 5), torch.randn(7, 5)
    expected = -Normal(out, math.exp(0.3)).log_prob(x).sum(1)
    torch.testing.assert_close(vae.reconstruction_loss(out, x), expected)


def test_weights_leave_pixels_out_of_the_reconstruction_loss():
    vae = VAE(2)
    x, logits = torch.rand(3, 1, 28, 28), torch.randn(3, 1, 28, 28)
    weights = torch.zeros(3, 1, 28, 28, dtype=torch.bool)
    weights[:, :, 4, 5] = True
    expected = F.binary_cross_entropy_with_logits(logits[:, 0, 4, 5], x[:, 0, 4, 5], reduction="none")
    torch.testing.assert_close(vae.reconstruction_loss(logits, x, weights), expected)


def test_the_autoencoder_is_the_vae_without_logvar_and_noise():
    torch.manual_seed(0)
    vae, plain = VAE(4), Autoencoder(4)
    assert set(vae.state_dict()) - set(plain.state_dict()) == {"fc22.weight", "fc22.bias"}
    plain.load_state_dict({name: value for name, value in vae.state_dict().items() if not name.startswith("fc22")})
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(plain(x), vae.decode(vae.encode(x)[0]))
    recon, kl = plain.loss_terms(x, x)
    assert kl.tolist() == [0, 0, 0]
    torch.testing.assert_close(recon.sum(), F.binary_cross_entropy(plain(x), x, reduction="sum"), rtol=1e-5, atol=0)


class SequenceEncoder(nn.Module):
    def __init__(self, latent_dim):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 8, batch_first=True), nn.Linear(8, 2 * latent_dim)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def test_other_networks_plug_in_for_rows_and_sequences():
    rows = VAE(2, encoder=nn.Linear(13, 4), decoder=nn.Linear(2, 13), likelihood="gaussian")
    recon, mu, logvar = rows(torch.randn(6, 13))
    assert (recon.shape, mu.shape, logvar.shape) == ((6, 13), (6, 2), (6, 2))
    decoder = nn.Sequential(nn.Linear(3, 20 * 2), nn.Unflatten(1, (20, 2)))
    sequences = VAE(3, encoder=SequenceEncoder(3), decoder=decoder, likelihood="gaussian")
    assert sequences(torch.randn(6, 20, 2))[0].shape == (6, 20, 2)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.zeros(2, 28, 28), r"\(2, 28, 28\)"),
        (torch.zeros(2, 3, 28, 28), r"\(2, 3, 28, 28\)"),
        (torch.zeros(2, 1, 32, 32), r"expected \(N, 1, 28, 28\)"),
        (torch.full((1, 1, 28, 28), 255.0), "255"),
        (torch.full((1, 1, 28, 28), -0.1), "-0.1"),
        (torch.full((1, 1, 28, 28), float("nan")), "NaN"),
        (torch.full((1, 1, 28, 28), float("inf")), "infinity"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.uint8), "uint8"),
    ],
)
@pytest.mark.parametrize("make", [VAE, Autoencoder])
def test_unsuitable_images_are_refused_with_the_value_and_the_fix(make, x, says):
    with pytest.raises(ValueError, match=says):
        make(2).encode(x)


def test_an_empty_batch_passes_through():
    recon, mu, _ = VAE(2)(torch.zeros(0, 1, 28, 28))
    assert recon.shape == (0, 1, 28, 28) and mu.shape == (0, 2)
