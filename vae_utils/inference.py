"""Inference: codes and reconstructions of many images, and bounds on their log-likelihood.

Everything runs in batches, without gradients, on the model's device, and comes back on the CPU.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_utils.model import VAE, Autoencoder, check_values, kl_divergence
from vae_utils.training import seeded


@torch.no_grad()
def in_batches(model: nn.Module, function: Callable[[Tensor], Tensor], values: Tensor, batch_size: int = 250) -> Tensor:
    """`function` of each batch of `values` `(N, ...)`, joined to `(N, ...)` on the CPU; it runs on the model's device."""
    device = next(model.parameters()).device
    model.eval()
    whole, done = None, 0
    for batch in values.split(batch_size):
        part = function(batch.to(device)).cpu()
        if whole is None:  # made at once: parts put together at the end would take the memory twice
            whole = part.new_empty(len(values), *part.shape[1:])
        whole[done : done + len(part)] = part
        done += len(part)
    return whole


def encode(model: Autoencoder, images: Tensor, batch_size: int = 250) -> tuple[Tensor, Tensor] | Tensor:
    """What `model.encode` gives: `mu` and `logvar` of q(z|x) for a VAE, codes for an autoencoder, each `(N, latent_dim)`."""
    check_values(images[:1], unit_interval=False)  # a NumPy array has no batches
    if not isinstance(model, VAE):
        return in_batches(model, model.encode, images, batch_size)
    both = in_batches(model, lambda x: torch.stack(model.encode(x), dim=1), images, batch_size)
    return both[:, 0], both[:, 1]


def decode(model: Autoencoder, z: Tensor, batch_size: int = 250) -> Tensor:
    """Images in [0, 1] from codes `(N, latent_dim)`."""
    return in_batches(model, model.decode, z, batch_size)


def reconstruct(model: Autoencoder, images: Tensor, batch_size: int = 250) -> Tensor:
    """What comes back when an image is encoded and decoded, without sampling: decode(mu)."""
    codes = encode(model, images, batch_size)
    return decode(model, codes[0] if isinstance(codes, tuple) else codes, batch_size)


def elbo(model: VAE, images: Tensor, samples: int = 1, seed: int = 0, batch_size: int = 250) -> Tensor:
    """The evidence lower bound of each image, `(N,)`, in nats: E[log p(x|z)] by `samples` draws, minus the exact KL."""

    def of_batch(x: Tensor) -> Tensor:
        mu, logvar = model.encode(x)
        draws = (model.decode_logits(model.reparameterize(mu, logvar)) for _ in range(samples))
        recon = sum(model.reconstruction_loss(out, x) for out in draws) / samples
        return -recon - kl_divergence(mu, logvar)

    with seeded(seed):
        return in_batches(model, of_batch, images, batch_size)


def importance_weighted_bound(model: VAE, images: Tensor, samples: int, seed: int = 0) -> Tensor:
    """log of the mean importance weight p(x, z) / q(z|x) of each image, `(N,)`, in nats, over `samples` draws from q(z|x).

    A bound on log p(x) that tightens with `samples`: the ELBO for one, in expectation, log p(x) for infinitely many
    (Burda, Grosse & Salakhutdinov 2015, eq. 8 and theorem 1).
    """

    def of_batch(x: Tensor) -> Tensor:
        mu, logvar = model.encode(x)
        log_weights = []
        for _ in range(samples):
            z = model.reparameterize(mu, logvar)
            log_prior_over_posterior = 0.5 * (logvar + (z - mu) ** 2 / logvar.exp() - z**2).sum(1)
            log_weights.append(log_prior_over_posterior - model.reconstruction_loss(model.decode_logits(z), x))
        return torch.stack(log_weights, dim=1).logsumexp(dim=1) - math.log(samples)

    with seeded(seed):
        return in_batches(model, of_batch, images, 200)


def active_units(mu: Tensor, threshold: float = 0.01) -> Tensor:
    """Which latent dimensions carry information: bool `(latent_dim,)`, True where the variance of `mu` `(N, latent_dim)`
    over images exceeds `threshold` (Burda et al. 2015, section 5.1)."""
    return mu.var(dim=0) > threshold
